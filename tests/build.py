"""Building blocks for tests: values that are whole and plain by default, so that a test names only what it is about.

By default it is noon (``NOW``), one check ``sessions`` asks for a worker per 400, nothing was ever bought, and every
worker has served for a day.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from autoscaler.facts import Facts
from autoscaler.model import (
    Arrival,
    Capacity,
    CheckReading,
    Cluster,
    Gap,
    GapReason,
    History,
    Override,
    OverrideKind,
    Purchase,
    PurchaseState,
    Reading,
    Restoral,
    Run,
    Task,
    TaskState,
    Worker,
)
from autoscaler.policy import Budget, Headroom, Limits, PerWorker, Policy, Schedule, Setpoint, Step, Steps, Window
from autoscaler.purchase import terms

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
CLUSTER_ID = "C1"
ENDPOINT = "https://cs.aliyuncs.com"
CREDENTIAL = "credential-1"
NO_TIME = timedelta(0)

Number = int | str | Fraction

_WORKER = {
    "worker_instance_type": "ens.sn1.tiny",
    "ens_region_id": "cn-beijing-telecom",
    "worker_image_id": "m-2QVLO2T8NYgm8CNQVg15gF",
    "ens_internet_charge_type": "BandwidthByDay",
    "worker_period": 1,
    "worker_auto_renew": True,
    "worker_auto_renew_period": 1,
    "worker_system_disk_size": 20,
    "worker_data_disk_size": 0,
    "timeout_mins": 60,
    "login_password": {"env": "EDGE_LOGIN_PASSWORD"},
}
_ENDED = frozenset(PurchaseState) - {
    PurchaseState.INTENDED,
    PurchaseState.SENDING,
    PurchaseState.ACCEPTED,
    PurchaseState.UNKNOWN,
}
_NEVER_SENT = frozenset({PurchaseState.INTENDED, PurchaseState.CANCELLED})


def at(**units: float) -> datetime:
    """An instant relative to ``NOW``: ``at(minutes=-5)``."""
    return NOW + timedelta(**units)


# --- policies ---


def per_worker(load_per_worker: Number = 400, name: str = "sessions", **fields: Any) -> PerWorker:
    query = fields.pop("query", "sum(live_sessions)")
    return PerWorker(name=name, strategy="per_worker", query=query, load_per_worker=Fraction(load_per_worker), **fields)


def setpoint(target: Number = "0.65", tolerance: Number = 0, name: str = "utilization", **fields: Any) -> Setpoint:
    query = fields.pop("query", "avg(edge_utilization)")
    return Setpoint(
        name=name, strategy="setpoint", query=query, target=Fraction(target), tolerance=Fraction(tolerance), **fields
    )


def steps(*table: tuple[int, int | str], name: str = "queue", **fields: Any) -> Steps:
    """``steps((100, 1), (500, 3), (2000, "20%"))``."""
    made = tuple(
        Step(at=Fraction(at), add_percent=Fraction(add[:-1]))
        if isinstance(add, str)
        else Step(at=Fraction(at), add=add)
        for at, add in table
    )
    return Steps(name=name, strategy="steps", query=fields.pop("query", "max(queue_depth)"), steps=made, **fields)


def schedule(*windows: Window, name: str = "evening") -> Schedule:
    return Schedule(name=name, strategy="schedule", windows=windows or (window(),))


def window(cron: str = "0 18 * * *", lasts: timedelta = timedelta(hours=6), workers: int = 12, **fields: Any) -> Window:
    return Window(cron=cron, lasts=lasts, workers=workers, **fields)


def headroom(percent: Number = 0, workers: int = 0) -> Headroom:
    return Headroom(ratio=Fraction(percent) / 100, workers=workers)


def budget(workers: int | None = None, money: Number | None = None, per: timedelta = timedelta(days=1)) -> Budget:
    return Budget(workers=workers, money=None if money is None else Fraction(money), per=per)


def policy(**overrides: Any) -> Policy:
    """A live policy. Fields of ``limits`` and ``worker`` may be given by their own names: ``policy(maximum=12)``."""
    limits: dict[str, Any] = {"minimum": 0, "maximum": 100, "per_action": 50, "budgets": ()}
    worker: dict[str, Any] = dict(_WORKER)
    for part in (limits, worker):
        part.update({name: overrides.pop(name) for name in tuple(overrides) if name in part})
    fields: dict[str, Any] = {
        "name": "edge",
        "cluster_id": CLUSTER_ID,
        "dry_run": False,
        "checks": (per_worker(),),
        "provision_timeout": timedelta(minutes=90),
        "worker": worker,
        "limits": Limits(**limits),
    }
    return Policy(**(fields | overrides))


# --- what was read ---


def reading(value: Number, check: str = "sessions", over: Number | Gap | None = None) -> CheckReading:
    covered = over if over is None or isinstance(over, Gap) else Reading(Fraction(over), NOW)
    return CheckReading(check, Reading(Fraction(value), NOW), covered)


def gap(reason: GapReason = GapReason.TIMEOUT, detail: str = "no answer within 5s") -> Gap:
    return Gap(reason, detail)


def unread(check: str = "sessions", reason: GapReason = GapReason.TIMEOUT) -> CheckReading:
    return CheckReading(check, gap(reason))


# --- workers ---


def worker(instance_id: str = "i-1", **overrides: Any) -> Worker:
    """A worker that has served for a day and renews itself."""
    fields: dict[str, Any] = {
        "instance_id": instance_id,
        "instance_type": _WORKER["worker_instance_type"],
        "listed": True,
        "ready": True,
        "created_at": at(days=-1),
        "expires_at": None,
        "first_seen_at": at(days=-1),
        "ready_at": at(days=-1),
        "last_ready_at": NOW,
        "last_seen_at": NOW,
    }
    return Worker(**(fields | overrides))


def workers(count: int, prefix: str = "i", **overrides: Any) -> tuple[Worker, ...]:
    return tuple(worker(f"{prefix}-{n}", **overrides) for n in range(1, count + 1))


def joining(count: int = 1, since: datetime = NOW - timedelta(minutes=5), **overrides: Any) -> tuple[Worker, ...]:
    """Workers that are listed and were never ready."""
    fields = {"ready": False, "created_at": since, "first_seen_at": since, "ready_at": None, "last_ready_at": None}
    return workers(count, prefix="joining", **(fields | overrides))


def warming(count: int = 1, since: datetime = NOW - timedelta(minutes=1), **overrides: Any) -> tuple[Worker, ...]:
    """Workers that became ready ``since``."""
    fields = {"created_at": at(minutes=-10), "first_seen_at": at(minutes=-10), "ready_at": since}
    return workers(count, prefix="warming", **(fields | overrides))


def lost(count: int = 1, since: datetime = NOW - timedelta(minutes=15), **overrides: Any) -> tuple[Worker, ...]:
    """Workers that were ready and have not been ``since``."""
    return workers(count, prefix="lost", **({"ready": False, "last_ready_at": since} | overrides))


def cluster(state: str = "running", profile: str = "Edge", size: int = 20, node_quota: int | None = None) -> Cluster:
    return Cluster(state, profile, size, node_quota)


def capacity(workers: Iterable[Worker] = (), **overrides: Any) -> Capacity:
    """``counted`` may be a plain number: what capacity.query says."""
    counted = overrides.pop("counted", None)
    fields: dict[str, Any] = {"at": NOW, "cluster": cluster()}
    fields["counted"] = Reading(Fraction(counted), NOW) if isinstance(counted, int | str | Fraction) else counted
    return Capacity(workers=tuple(workers), **(fields | overrides))


# --- purchases ---


def purchase(
    id: int = 1, state: str = "accepted", asked: int = 3, sent_at: datetime = NOW - timedelta(hours=1), **overrides: Any
) -> Purchase:
    """A purchase of ``policy()``; ``of=policy`` makes it another's.

    A fulfilled one has all its arrivals: put ``arrived_workers()`` of it into the capacity, or pass ``arrivals=()``,
    else its workers count as in flight (a look older than their arrival).
    """
    buyer: Policy = overrides.pop("of", None) or policy()
    now = PurchaseState(state)
    fields: dict[str, Any] = {
        "policy": buyer.name,
        "policy_version": buyer.version,
        "cluster_id": buyer.cluster_id,
        "terms": terms(buyer),
        "imagined": False,
        "nonce": f"nonce-{id}",
        "signed_at": sent_at,
        "reserved_at": sent_at,
        "endpoint": ENDPOINT,
        "credential": CREDENTIAL,
        "shared_budgets": tuple(budget.shared for budget in buyer.limits.budgets if budget.shared),
        "supply_before": 0,
        "tasks_before": (),
        "sent_at": None if now in _NEVER_SENT else sent_at,
        "answered_at": None if now in _NEVER_SENT else sent_at,
        "ended_at": sent_at if now in _ENDED else None,
        "arrivals": arrivals(id, asked, sent_at) if now is PurchaseState.FULFILLED else (),
    }
    return Purchase(id=id, state=now, asked=asked, **(fields | overrides))


def arrivals(purchase_id: int, count: int, when: datetime = NOW) -> tuple[Arrival, ...]:
    return tuple(Arrival(f"bought-{purchase_id}-{n}", when) for n in range(1, count + 1))


def arrived_workers(purchase: Purchase, **overrides: Any) -> tuple[Worker, ...]:
    """The workers that a purchase brought, serving by default."""
    return tuple(
        worker(arrival.instance_id, **({"purchase_id": purchase.id} | overrides)) for arrival in purchase.arrivals
    )


def task(task_id: str = "T-1", state: str = "running", **overrides: Any) -> Task:
    return Task(**({"task_id": task_id, "state": TaskState(state), "created_at": at(hours=-1)} | overrides))


# --- people, history and the whole ---


def order(kind: str, workers: int | None = None, id: int = 1, **overrides: Any) -> Override:
    """``order("buy", 5)``, ``order("freeze")``: active from an hour ago for two hours."""
    fields: dict[str, Any] = {
        "policies": ("*",),
        "author": "ana",
        "reason": "derby tonight",
        "starts_at": at(hours=-1),
        "ends_at": at(hours=1),
    }
    return Override(id=id, kind=OverrideKind(kind), workers=workers, **(fields | overrides))


def run(wanted: Number | None, first: datetime, last: datetime, of: Policy | None = None) -> Run:
    """A run of evaluations half a minute apart."""
    version = (of or policy()).version
    amount = None if wanted is None else Fraction(wanted)
    return Run(version, amount, first, last, n=int((last - first) / timedelta(seconds=30)) + 1)


def history(
    *purchases: Purchase,
    runs: Iterable[Run] = (),
    gone: Iterable[Purchase] = (),
    restoral: Restoral | None = None,
) -> History:
    return History(purchases, tuple(runs), tuple(gone), restoral)


def facts(policy_: Policy | None = None, load: Number | None = None, **overrides: Any) -> Facts:
    """Facts of ``policy()`` at ``NOW`` with no workers; ``load`` is the reading of ``sessions``."""
    fields: dict[str, Any] = {
        "policy": policy_ or policy(),
        "now": NOW,
        "readings": () if load is None else (reading(load),),
        "capacity": capacity(),
        "history": history(),
        "overrides": (),
        "endpoint": ENDPOINT,
        "credential": CREDENTIAL,
    }
    return Facts(**(fields | overrides))
