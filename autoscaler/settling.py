"""Settling: open purchases are moved on by what the cloud shows of them, and every change is recorded and told.

Nothing here sends anything: it may be repeated at any time, by whichever process holds the cluster.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from autoscaler.model import Accepted, Gap, Inventory, Purchase, PurchaseState, RefusalClass, Task, Worker
from autoscaler.purchase import OPEN, Evidence, abandoned, answered, arrive_imagined, next_state
from autoscaler.supply import term_ends_at

log = structlog.get_logger(__name__)

Change = Callable[[Purchase], Purchase]


class Cloud(Protocol):
    """What the cloud shows of purchases already made."""

    def inventory(self, cluster_id: str) -> Inventory | Gap: ...

    def task(self, task_id: str) -> Task | Gap | None: ...


class Ledger(Protocol):
    """Where purchases are kept, and what looks have shown."""

    def change(
        self, purchase_id: int, next: Change, at: datetime, what: str, author: str | None = None
    ) -> Purchase: ...

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]: ...

    def own_tasks(self, cluster_id: str) -> frozenset[str]: ...


class Observer(Protocol):
    """Whoever counts purchases."""

    def purchases_changed(self, purchases: Iterable[Purchase]) -> None: ...


def tell(purchase: Purchase, what: str) -> None:
    """Log how a purchase stands now, as loudly as a person has to hear of it."""
    match purchase.state, purchase.refusal:
        case PurchaseState.REJECTED, RefusalClass.BUSY | RefusalClass.LATER:
            say = log.warning
        case PurchaseState.UNKNOWN | PurchaseState.FAILED | PurchaseState.EXPIRED | PurchaseState.REJECTED, _:
            say = log.error  # a person must hear of it
        case _:
            say = log.info
    say(
        f"purchase.{purchase.state.value}",
        purchase=purchase.id,
        policy=purchase.policy,
        asked=purchase.asked,
        arrived=purchase.arrived,
        failed=purchase.failed,
        outstanding=purchase.outstanding,
        why=purchase.message or what,
    )


class Settling:
    """Moves purchases on, and records and tells of every change."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        cloud: Cloud,
        observer: Observer,
        clock: Callable[[], datetime],
        tell: Callable[[Purchase, str], None] = tell,
    ) -> None:
        """``tell`` is called with every purchase that changed, and why it did."""
        self._ledger = ledger
        self._tell = tell
        self._cloud = cloud
        self._observer = observer
        self._clock = clock

    def settle(self, cluster_id: str, purchases: Sequence[Purchase], now: datetime, *, in_hand: bool = False) -> None:
        """Settle the purchases of one cluster. ``in_hand``: another one of it is being sent by this process."""
        for purchase in purchases:
            if purchase.imagined:
                self._change(purchase, partial(_imagine, now=now), "as a dry run imagines it")
            elif purchase.state in (PurchaseState.INTENDED, PurchaseState.SENDING):
                self._change(purchase, partial(abandoned, now=now), "its process is gone")
        # Of ended ones, workers may turn up for as long as they were paid for.
        real = [p for p in purchases if not p.imagined and (p.state in OPEN or now < term_ends_at(p))]
        if in_hand or any(p.state in OPEN for p in real):
            # A worker that turns up now is the open one's; latecomers of ended ones wait until that has all its own.
            real = [p for p in real if p.state in OPEN]
        if not real:
            return
        look = self._cloud.inventory(cluster_id)
        if isinstance(look, Gap):
            log.debug("settle.no_look", cluster_id=cluster_id, reason=look.reason.value, detail=look.detail)
            return
        workers = self._ledger.record_look(look)
        known = self._ledger.own_tasks(cluster_id)
        strangers = tuple(task for task in look.tasks if task.task_id not in known)
        taken = {worker.instance_id: worker.purchase_id for worker in workers if worker.purchase_id is not None}
        waits = False
        for purchase in sorted(real, key=lambda p: (p.state not in OPEN, p.id)):  # open ones take their workers first
            if waits and purchase.state is PurchaseState.UNKNOWN:
                continue  # what it would be found by may belong to one that could not take its own this time
            claimed = frozenset(instance for instance, owner in taken.items() if owner != purchase.id)
            by_nodes = Evidence(look.at, workers, task=None, strangers=strangers, claimed=claimed)
            try:
                settled = self._settle_one(purchase, by_nodes, now)
            except Exception:
                log.exception("settle.failed", cluster_id=cluster_id, purchase=purchase.id)
                settled = None
            if settled is None:
                waits = True
                continue
            taken.update((arrival.instance_id, purchase.id) for arrival in settled.arrivals)

    def _settle_one(self, purchase: Purchase, by_nodes: Evidence, now: datetime) -> Purchase | None:
        """Move one purchase on by its task and the nodes; by the nodes alone where its task cannot be asked for.

        None: while there is time, it waits for its task, which tells more than the nodes do.
        """
        task = None
        if purchase.task_id is not None:
            if purchase.state not in OPEN and next_state(purchase, by_nodes, now) == purchase:
                return purchase  # a latecomer shows among the nodes; its task, of weeks ago, is asked for only then
            task_or_gap = self._cloud.task(purchase.task_id)
            if not isinstance(task_or_gap, Gap):
                task = task_or_gap
            elif by_nodes.at < (purchase.sent_at or purchase.signed_at) + purchase.terms.provision_timeout:
                return None
        seen = partial(next_state, evidence=replace(by_nodes, task=task), now=now)
        return self._change(purchase, seen, "by what the cloud shows")

    def _change(self, purchase: Purchase, change: Change, what: str) -> Purchase:
        return purchase if change(purchase) == purchase else self.apply(purchase.id, change, what)

    def apply(self, purchase_id: int, change: Change, what: str) -> Purchase:
        """Apply a transition to the row as it stands now, and tell of it."""
        changed = self._ledger.change(purchase_id, change, self._clock(), what)
        self._observer.purchases_changed([changed])
        self._tell(changed, what)
        return changed


def _imagine(purchase: Purchase, now: datetime) -> Purchase:
    """A dry run's purchase needs no evidence, since nobody else ever heard of it; one left half sent is taken."""
    if purchase.state in (PurchaseState.SENDING, PurchaseState.UNKNOWN):
        return answered(purchase, Accepted(f"imagined-{purchase.nonce}"), now)
    return arrive_imagined(abandoned(purchase, now), now)
