"""The daemon: when what is evaluated, settled and renewed, and how it starts, reloads and stops.

Policies of one slot are evaluated together by one job of the scheduler. The heartbeat is a job too and touches nothing
outside, so that it tells of the scheduler alone; leases are renewed by a job of their own, so that a daemon whose
scheduler no longer runs also loses its clusters.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, timedelta

import structlog
from apscheduler.events import EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import BasePoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from autoscaler.ledger import LedgerError, MarkName
from autoscaler.metrics import Dropped
from autoscaler.model import Override
from autoscaler.policy import Policy
from autoscaler.slots import Slot, slot_of
from autoscaler.threads import PATIENCE_SECONDS, Threads
from autoscaler.wiring import Parts

log = structlog.get_logger(__name__)

HEARTBEAT = timedelta(seconds=5)
RENEW_EVERY = timedelta(seconds=5)  # a third of a lease: two may be missed
RECENT_PURCHASES = 200
PRUNE_EVERY = timedelta(hours=1)
WATCH_EVERY = timedelta(seconds=1)  # an order is obeyed within two


class EmptyLedger(Exception):
    """A policy is live and the ledger was never used so: another may have been lost, and with it what was bought."""


class NoPolicies(Exception):
    """No policy file can be used."""


class _InThreads(BasePoolExecutor):  # type: ignore[misc]  # the library has no types
    """Runs jobs in threads of their own: none waits for another, and each job has one run at a time."""

    def __init__(self) -> None:
        super().__init__(Threads("job"))


class Daemon:
    """Runs until it is told to stop. One per process: it takes the process's signals."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._slots: dict[Slot, tuple[Policy, ...]] = {}
        self._unevaluated: set[str] = set()
        self._orders: dict[int, Override] = {}  # in force when last looked
        self._woken = Threads("woken")
        self._loaded: int | None = None
        self._beat_at: float | None = None
        self._in_use = False  # a policy is live, and the ledger was used so before, or is new by a person's word
        self._failing: dict[str, str] = {}  # by job: what kept its last run from the ledger
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._reload = threading.Event()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": _InThreads()},
            # A run that comes late is better than none, and one is enough for several missed.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_listener(self._dropped, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def run(self, *, begin: bool = False) -> None:
        """Work until SIGTERM or SIGINT; SIGHUP reloads the policies. Purchases being sent are finished and recorded.

        ``begin`` says that the ledger is a new one, by which live policies may buy. Raises EmptyLedger, NoPolicies.
        Does not return where a read hangs that nothing can cut: the process then ends here, with status 0.
        """
        begun_before = threading.enumerate()
        # Python runs them in this thread, and not before it wakes where another got the signal, or where it came just
        # before this one began to wait: so it never waits for long.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: self.reload())
        self.start(begin=begin)
        while not self._stopping.is_set():
            self._wake.wait(HEARTBEAT.total_seconds())
            self._wake.clear()
            self._keep_due()
            if self._reload.is_set() and not self._stopping.is_set():
                self._reload.clear()
                self._load_again()
        self.close()
        _leave_what_hangs(begun_before)

    def start(self, *, begin: bool = False) -> None:
        """Load the policies, take their clusters and start the jobs; see ``run``."""
        self._load(begin=begin)
        errors = self._parts.catalog.errors
        if errors and not self._slots:
            raise NoPolicies("no policy can be used:\n" + "\n".join(f"  {problem}" for problem in errors))
        for concern in self._parts.ledger.concerns():
            log.warning("ledger.concern", concern=concern)
        self._parts.metrics.purchases_changed(self._parts.ledger.purchases(limit=None))
        self._parts.purchasing.remind()
        self._renew()
        self._upkeep("heartbeat", self._heartbeat, HEARTBEAT)
        self._upkeep("leases", self._renew, RENEW_EVERY)
        self._upkeep("orders", self._watch_orders, WATCH_EVERY)
        self._upkeep("settle", self._settle, self._parts.pace.settle_every)
        self._upkeep("prune", self._prune, PRUNE_EVERY)
        self._heartbeat()
        self._scheduler.start()
        log.info(
            "daemon.started", policies=self._loaded, live=len(self._parts.live()), holder=self._parts.leases.holder
        )

    def stop(self) -> None:
        """Ask it to stop; ``run`` returns once purchases being sent are answered and recorded."""
        self._stopping.set()
        self._wake.set()

    def reload(self) -> None:
        """Ask it to read the policy files again."""
        self._reload.set()
        self._wake.set()

    def close(self) -> None:
        """Decide and send nothing more, finish what is being sent, stop the jobs, give the clusters back."""
        self._stopping.set()
        self._parts.controller.close()
        log.info("daemon.stopping", sending=len(self._parts.purchasing.sending()))
        # The jobs go on until then: another replica must not take what is being sent for abandoned.
        self._parts.purchasing.close()
        self._parts.hang_up()
        self._scheduler.shutdown()
        self._parts.close()
        log.info("daemon.stopped")

    def heartbeat_age(self) -> timedelta | None:
        """Time since the scheduler last ran the heartbeat, by a clock that never jumps."""
        return None if self._beat_at is None else timedelta(seconds=time.monotonic() - self._beat_at)

    def pools(self) -> Mapping[str, bool]:
        """Of each pool, by name: whether it takes work."""
        return {"evaluate": self._scheduler.running or self._stopping.is_set()}

    def policies(self) -> int | None:
        """Policies that are evaluated; None: not loaded yet."""
        return self._loaded

    def unevaluated(self) -> int:
        """Policies, of clusters this process holds, whose first evaluation has not ended."""
        held = self._parts.leases.held()
        return sum(p.name in self._unevaluated and p.cluster_id in held for p in self._all())

    def ledger_problem(self) -> str | None:
        """What is wrong with the ledger, or None: it can be read now, and no job's last run failed for it."""
        try:
            self._parts.ledger.in_use()
        except LedgerError as error:
            return str(error)
        return next(iter(list(self._failing.values())), None)

    def _all(self) -> list[Policy]:
        return [policy for policies in self._slots.values() for policy in policies]

    def _load_again(self) -> None:
        try:
            self._load()
        except Exception:
            log.exception("reload.failed")  # the policies in force stay
            return
        self._renew()

    def _load(self, *, begin: bool = False) -> None:
        def accept(policies: Iterable[Policy]) -> None:
            if not self._in_use:  # a reload must not wait for a ledger that fails now
                self._require_ledger(policies, begin=begin)

        policies = self._parts.load_policies(accept)
        known = {policy.name for policy in self._all()}
        names = {policy.name for policy in policies}
        for gone in known - names:
            self._parts.metrics.forget(gone)
        self._unevaluated = (self._unevaluated & names) | (names - known)
        slots: dict[Slot, tuple[Policy, ...]] = {}
        for policy in policies:
            slot = slot_of(policy.name, policy.evaluate_every)
            slots[slot] = (*slots.get(slot, ()), policy)
        before, self._slots = self._slots, slots
        # Only what changed is touched: adding a job anew would start its interval again.
        for slot in before.keys() - slots.keys():
            self._scheduler.remove_job(_job_id(slot))
            self._failing.pop(_job_id(slot), None)
        for slot in slots.keys() - before.keys():
            self._scheduler.add_job(
                self._evaluate,
                IntervalTrigger(
                    seconds=slot.period.total_seconds(),
                    start_date=slot.next_start(self._parts.clock()),
                    timezone=UTC,
                ),
                args=[slot],
                id=_job_id(slot),
            )
        self._loaded = len(policies)

    def _require_ledger(self, policies: Iterable[Policy], *, begin: bool = False) -> None:
        """Raises EmptyLedger where a policy is live and nobody said that the ledger is a new one."""
        live, ledger = [policy.name for policy in policies if not policy.dry_run], self._parts.ledger
        if not live or ledger.in_use():
            self._in_use = bool(live)
            return
        if not begin:
            raise EmptyLedger(
                f"nothing was ever bought by this ledger, and {live[0]} is live. If the one in use was lost, restore "
                "it: it knows what was bought. If it is new, or only dry runs used it, say so: autoscaler run --init"
            )
        ledger.mark(MarkName.BEGUN, self._parts.clock(), "run --init")
        self._in_use = True

    def _upkeep(self, name: str, job: Callable[[], None], every: timedelta) -> None:
        self._scheduler.add_job(job, IntervalTrigger(seconds=every.total_seconds(), timezone=UTC), id=name)

    def _keep_due(self) -> None:
        """Let no job wait for longer than its period: the scheduler goes by the wall clock, which may be set back."""
        now = self._parts.clock()
        waiting = [job for job in self._scheduler.get_jobs() if job.next_run_time - now > job.trigger.interval]
        for job in waiting:
            early = (job.next_run_time - now) // job.trigger.interval * job.trigger.interval
            with suppress(JobLookupError):  # a reload removed it meanwhile
                job.modify(next_run_time=job.next_run_time - early)
        if waiting:
            log.warning("daemon.clock_set_back", jobs=len(waiting))

    def _evaluate(self, slot: Slot) -> None:
        self._evaluate_held(_job_id(slot), self._slots.get(slot, ()))

    def _evaluate_held(self, job: str, asked: Sequence[Policy]) -> None:
        held = self._parts.leases.held()
        policies = [policy for policy in asked if policy.cluster_id in held]
        if not policies or self._stopping.is_set():
            return
        try:
            self._parts.controller.evaluate(policies, self._parts.clock())
        except Exception as error:
            if not self._stopping.is_set():
                self._failed(job, "evaluations.failed", error, policies=len(policies))
            return
        self._failing.pop(job, None)
        # In place: a reload may be putting another set there.
        self._unevaluated.difference_update(policy.name for policy in policies)

    def _watch_orders(self) -> None:
        """Evaluate at once what an order that has come or gone is for, wherever it was given."""
        try:
            in_force = {order.id: order for order in self._parts.ledger.overrides(self._parts.clock())}
        except Exception as error:
            if "orders" not in self._failing:  # once, not each second
                self._failed("orders", "orders.unread", error)
            return
        self._failing.pop("orders", None)
        before, self._orders = self._orders, in_force
        changed = [(before | in_force)[id] for id in before.keys() ^ in_force.keys()]
        policies = [policy for policy in self._all() if any(order.names(policy.name) for order in changed)]
        if policies:
            log.info("orders.changed", orders=sorted(order.id for order in changed), policies=len(policies))
            # In a thread of its own: the next order is not to wait for a cloud that is slow now.
            self._woken.submit(self._evaluate_held, "woken", policies)

    def _heartbeat(self) -> None:
        self._beat_at = time.monotonic()
        self._parts.metrics.beat(self._parts.clock())

    def _renew(self) -> None:
        try:
            restoral = self._parts.ledger.take_up(self._parts.clock())
            if restoral is not None:
                log.warning("ledger.restored", copied_at=str(restoral.copied_at))
            # A database may be emptied, and begun anew by another daemon, beneath this one.
            self._require_ledger(self._all())
            # Clusters whose policies are gone too, while something bought there is not settled.
            unsettled = {purchase.cluster_id for purchase in self._parts.ledger.unsettled()}
            asked = unsettled | {policy.cluster_id for policy in self._all()}
            self._parts.leases.renew(asked, keep=self._parts.purchasing.sending())
            self._failing.pop("leases", None)
        except Exception as error:
            self._failed("leases", "leases.failed", error)
        held = self._parts.leases.held()
        for policy in self._all():
            if policy.cluster_id not in held:
                self._parts.metrics.forget(policy.name)

    def _settle(self) -> None:
        try:
            self._parts.purchasing.settle_all(self._parts.clock())
            # Those of other replicas too: the figures are of the ledger, not of this process.
            self._parts.metrics.purchases_changed(self._parts.ledger.purchases(limit=RECENT_PURCHASES))
            self._failing.pop("settle", None)
        except Exception as error:
            self._failed("settle", "settling.failed", error)

    def _failed(self, job: str, event: str, error: Exception, **more: int) -> None:
        log.error(event, error=str(error), kind=type(error).__name__, **more)
        self._failing[job] = str(error) if isinstance(error, LedgerError) else f"{type(error).__name__}: {error}"

    def _prune(self) -> None:
        try:
            self._parts.ledger.prune(self._parts.clock(), self._parts.settings.retention)
        except Exception as error:
            log.error("pruning.failed", error=str(error), kind=type(error).__name__)

    def _dropped(self, event: JobEvent) -> None:
        cause = Dropped.MISSED if event.code == EVENT_JOB_MISSED else Dropped.MAX_INSTANCES
        self._parts.metrics.run_dropped(cause)


def _job_id(slot: Slot) -> str:
    return f"{slot.period.total_seconds():g}s+{slot.index}"


def _leave_what_hangs(begun_before: Collection[threading.Thread]) -> None:
    """End the process if threads are left at hosts that are mute: the interpreter would wait for those of libraries."""
    ends = time.monotonic() + PATIENCE_SECONDS
    for thread in set(threading.enumerate()) - set(begun_before):
        if thread.name.startswith("AnyIO"):
            continue  # idle ones of the web server, which ends them itself
        thread.join(max(0.0, ends - time.monotonic()))
        if thread.is_alive():
            log.warning("daemon.left_hanging", thread=thread.name)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
