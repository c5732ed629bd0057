"""Supply: where a policy's workers stand, counted from the node list, the purchases and ``now``.

A worker goes expected → joining → warming → serving, and its sources may tell of it late and in any order. Whatever
they leave out for a while is counted from the purchase instead: twice at times, never not at all.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from autoscaler.model import Capacity, Purchase, PurchaseState, Worker
from autoscaler.months import add_months
from autoscaler.policy import Policy
from autoscaler.purchase import OPEN

# More than this many and more than this share of the workers lost at once is a cut line or a lost site, not a shortage
# that buying mends. (Figures of cluster-autoscaler's own health check: 3 nodes and 45 %.)
UNHEALTHY_WORKERS = 3
UNHEALTHY_PERCENT = 45
# Workers that die one by one over weeks are replaced; those of one cut line drop out within minutes.
AT_ONCE = timedelta(minutes=15)


class Stage(StrEnum):
    """Where one listed worker stands."""

    JOINING = "joining"
    WARMING = "warming"
    SERVING = "serving"
    LOST = "lost"
    WRITTEN_OFF = "written_off"


@dataclass(frozen=True, slots=True)
class Lapse:
    """Workers whose terms end at the same instant and are not renewed."""

    at: datetime
    workers: int


@dataclass(frozen=True, slots=True)
class Supply:
    """Where the policy's workers stand, in numbers of workers."""

    serving: int
    expected: int
    joining: int
    warming: int
    lost: int  # were ready, are not, for less than replace_after
    written_off: int  # lost for longer, or never ready for provision_timeout: paid, no longer supply
    lapsing: int  # of those above, the ones whose unrenewed term ends within replace_before
    imagined: int  # of the serving ones, those a dry run imagines: they carry no load
    paid: int
    unhealthy: bool  # so many lost at once that nothing should be bought

    @property
    def in_flight(self) -> int:
        """Workers asked for and not yet serving."""
        return self.expected + self.joining + self.warming

    @property
    def total(self) -> int:
        """What counts against the number wanted."""
        return self.serving + self.in_flight + self.lost - self.lapsing


def count(policy: Policy, capacity: Capacity, purchases: Sequence[Purchase], now: datetime) -> Supply:
    """Count a policy's workers at ``now``. ``purchases``: the policy's own."""
    bought = {purchase.id: purchase for purchase in purchases}
    there = (worker for worker in capacity.workers if worker.listed or not _is_over(worker, policy, bought, now))
    workers = (*there, *_imagined_workers(purchases, now))
    failures = {instance for purchase in purchases for instance in purchase.failures}
    stages = [stage(worker, policy, now, failed=worker.instance_id in failures) for worker in workers]
    real = Counter(at for worker, at in zip(workers, stages, strict=True) if not worker.imagined)
    every = Counter(stages)
    imagined = every[Stage.SERVING] - real[Stage.SERVING]
    lapsing = sum(
        at is not Stage.WRITTEN_OFF and _lapses(worker, policy, bought, now)
        for worker, at in zip(workers, stages, strict=True)
    )
    serving, existing = real[Stage.SERVING], len(workers)
    if capacity.counted is not None:
        counted = int(capacity.counted.value)
        # Where the list cannot tell two policies' workers apart it holds only those this policy bought, and the query
        # counts others beside them: those not serving may then be missing from it.
        beside = 0 if capacity.alone else real.total() - serving
        serving = max(serving, counted)
        existing = max(existing, counted + beside + existing - real.total())
    unseen = _arrived_unseen(capacity, purchases, now)
    out = dropped_out(capacity)
    return Supply(
        serving=serving + imagined,
        expected=unseen + sum(purchase.outstanding for purchase in purchases if purchase.state in OPEN),
        joining=every[Stage.JOINING],
        warming=every[Stage.WARMING],
        lost=every[Stage.LOST],
        written_off=every[Stage.WRITTEN_OFF],
        lapsing=lapsing,
        imagined=imagined,
        paid=existing + unseen + sum(_asked_and_not_seen(purchase, now) for purchase in purchases),
        unhealthy=out > UNHEALTHY_WORKERS and out * 100 > UNHEALTHY_PERCENT * real.total(),
    )


def stage(worker: Worker, policy: Policy, now: datetime, *, failed: bool = False) -> Stage:
    """Where one worker stands at ``now``. ``failed``: its purchase's task says it will not come."""
    if worker.ready_at is None:
        waited = failed or now >= worker.first_seen_at + policy.provision_timeout
        return Stage.WRITTEN_OFF if waited else Stage.JOINING
    if not worker.ready:
        lost_at = worker.last_ready_at or worker.ready_at
        return Stage.LOST if now < lost_at + policy.replace_after else Stage.WRITTEN_OFF
    return Stage.WARMING if now < worker.ready_at + policy.warm_up else Stage.SERVING


def dropped_out(capacity: Capacity) -> int:
    """The most workers that stopped being ready within a quarter of an hour and still are not, with months left."""
    times = sorted(
        worker.last_ready_at or worker.ready_at
        for worker in capacity.workers
        if worker.ready_at is not None
        and not worker.ready
        and (worker.listed or worker.expires_at is None or worker.expires_at > capacity.at)
    )
    return max((bisect_right(times, at + AT_ONCE) - n for n, at in enumerate(times)), default=0)


def supply_before(policy: Policy, capacity: Capacity, purchases: Sequence[Purchase], now: datetime) -> int | None:
    """The supply there was before the oldest purchase still in flight; None: nothing bought is in flight."""
    workers = {worker.instance_id: worker for worker in capacity.workers}
    for purchase in purchases:
        if (purchase.state in OPEN and purchase.outstanding) or _arriving(purchase, workers, policy, now):
            return purchase.supply_before
    return None


def changes_at(policy: Policy, capacity: Capacity, purchases: Sequence[Purchase]) -> Iterable[datetime]:
    """The instants at which time alone moves a worker on, in no order, past ones too."""
    bought = {purchase.id: purchase for purchase in purchases}
    for worker in (*capacity.workers, *_all_imagined(purchases)):
        if worker.ready_at is None:
            yield worker.first_seen_at + policy.provision_timeout
        elif worker.ready:
            yield worker.ready_at + policy.warm_up
        else:
            yield (worker.last_ready_at or worker.ready_at) + policy.replace_after
        ends_at = _unrenewed_end(worker, policy, bought)
        if ends_at is not None:
            yield ends_at - policy.replace_before
            if worker.imagined or not worker.listed:
                yield ends_at
    for purchase in purchases:
        if purchase.state is PurchaseState.EXPIRED and purchase.outstanding:
            yield term_ends_at(purchase)


def term_ends_at(purchase: Purchase) -> datetime:
    """When the months first paid for are over."""
    return add_months(purchase.sent_at or purchase.reserved_at, purchase.terms.period)


def _arrived_unseen(capacity: Capacity, purchases: Sequence[Purchase], now: datetime) -> int:
    # A look that is older than the one a purchase was settled by does not show the workers it brought; nor is an
    # imagined one there yet that arrived by a clock that was ahead.
    listed = {worker.instance_id for worker in capacity.workers}
    return sum(
        now < arrival.at if purchase.imagined else arrival.gone_at is None and arrival.instance_id not in listed
        for purchase in purchases
        for arrival in purchase.arrivals
    )


def _asked_and_not_seen(purchase: Purchase, now: datetime) -> int:
    # Workers that never arrived in time may still be paid for: they count until the months asked for are over.
    may_exist = purchase.state in OPEN or (purchase.state is PurchaseState.EXPIRED and now < term_ends_at(purchase))
    return purchase.outstanding if may_exist else 0


def _arriving(purchase: Purchase, workers: dict[str, Worker], policy: Policy, now: datetime) -> bool:
    if purchase.imagined:
        return any(now < arrival.at + policy.warm_up for arrival in purchase.arrivals)
    found = (workers.get(arrival.instance_id) for arrival in purchase.arrivals if arrival.gone_at is None)
    return any(worker is None or stage(worker, policy, now) in (Stage.JOINING, Stage.WARMING) for worker in found)


def _lapses(worker: Worker, policy: Policy, bought: dict[int, Purchase], now: datetime) -> bool:
    ends_at = _unrenewed_end(worker, policy, bought)
    return ends_at is not None and ends_at <= now + policy.replace_before


def _is_over(worker: Worker, policy: Policy, bought: dict[int, Purchase], now: datetime) -> bool:
    """Whether the worker's last term has ended; one that is listed all the same was renewed by somebody."""
    ends_at = _unrenewed_end(worker, policy, bought)
    return ends_at is not None and ends_at <= now


def _unrenewed_end(worker: Worker, policy: Policy, bought: dict[int, Purchase]) -> datetime | None:
    """When the worker's term ends for good; None: it renews itself, or nobody says when it ends."""
    purchase = bought.get(worker.purchase_id or 0)
    if policy.worker.worker_auto_renew if purchase is None else purchase.terms.auto_renew:
        return None
    return worker.expires_at or (None if purchase is None else term_ends_at(purchase))


def _imagined_workers(purchases: Sequence[Purchase], now: datetime) -> list[Worker]:
    return [
        worker
        for worker in _all_imagined(purchases)
        if worker.first_seen_at <= now and (worker.expires_at is None or now < worker.expires_at)
    ]


def _all_imagined(purchases: Sequence[Purchase]) -> Iterable[Worker]:
    for purchase in purchases:
        if not purchase.imagined:
            continue
        for arrival in purchase.arrivals:
            yield Worker(
                instance_id=arrival.instance_id,
                instance_type=purchase.terms.instance_type,
                listed=True,
                ready=True,
                created_at=arrival.at,
                expires_at=None if purchase.terms.auto_renew else term_ends_at(purchase),
                first_seen_at=arrival.at,
                ready_at=arrival.at,
                last_ready_at=arrival.at,
                last_seen_at=arrival.at,
                purchase_id=purchase.id,
                imagined=True,
            )
