"""The ledger in lists, for simulation and tests: the same contract, without a disk and for one process."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from threading import RLock

from autoscaler.decision import Decision, Evaluation, next_runs
from autoscaler.ledger.agreement import (
    ENDED_BY_RESTORING,
    FOUND_A_COPY,
    LATE,
    SAMPLES_KEPT,
    assemble,
    changed,
    in_order,
    is_copy,
    is_news,
    is_stale,
    minute,
    restoral_of,
    to_end,
    why_not_claim,
    why_not_send,
)
from autoscaler.ledger.errors import NotFound
from autoscaler.ledger.lease_list import LeaseList
from autoscaler.ledger.order_list import OrderList
from autoscaler.ledger.records import Lease, Mark, MarkName, PurchaseEvent, Sample, StoredDecision
from autoscaler.ledger.sightings import Sighting, merge
from autoscaler.model import (
    CheckReading,
    History,
    Inventory,
    Override,
    OverrideKind,
    PaidWorker,
    Purchase,
    PurchaseState,
    Restoral,
    Run,
    Terms,
    Worker,
)
from autoscaler.override import OrderKey
from autoscaler.policy import Policy
from autoscaler.purchase import OPEN, UNRESOLVED, Raced, copied


class MemoryLedger:
    """Lists behind one lock. The methods are those of ``SqlLedger``, and are documented there."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = RLock()
        self._purchases: dict[int, Purchase] = {}
        self._events: dict[int, list[PurchaseEvent]] = {}
        self._orders = OrderList()
        self._looks: dict[str, datetime] = {}
        self._sightings: dict[str, dict[str, Sighting]] = {}
        self._latest: dict[str, tuple[Decision, tuple[Run, ...]]] = {}
        self._readings: dict[str, tuple[CheckReading, ...]] = {}
        self._samples: dict[tuple[str, datetime], Sample] = {}
        self._decisions: dict[int, tuple[Evaluation, int | None]] = {}
        self._decided = 0
        self._marks: list[Mark] = []
        self._leases = LeaseList()

    def histories(self, policies: Sequence[Policy], now: datetime) -> Mapping[str, History]:
        with self._lock:
            runs = {(d.policy, d.cluster_id): runs for d, runs in self._latest.values()}
            purchases = self._told(self._purchases.values())
            return assemble(policies, purchases, runs, self.restoral(now), self.overrides(now))

    def overrides(self, now: datetime) -> tuple[Override, ...]:
        with self._lock:
            return self._orders.active(now)

    def add_override(
        self,
        kind: OverrideKind,
        policies: Sequence[str],
        workers: int | None,
        author: str,
        reason: str,
        starts_at: datetime,
        ends_at: datetime,
        key: OrderKey | None = None,
    ) -> Override:
        with self._lock:
            order = Override(0, kind, tuple(policies), workers, author, reason, starts_at, ends_at)
            return self._orders.add(order, key)

    def override(self, id: int) -> Override:
        with self._lock:
            return self._orders.find(id)

    def override_history(self, *, before_id: int | None = None, limit: int = 50) -> tuple[Override, ...]:
        with self._lock:
            return self._orders.newest(before_id, limit)

    def end_override(self, id: int, author: str, reason: str, at: datetime) -> Override:
        with self._lock:
            return self._orders.end(id, author, reason, at)

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]:
        with self._lock:
            cluster_id = inventory.cluster_id
            looked_at = self._looks.get(cluster_id)
            if inventory.at != looked_at and not is_stale(looked_at, inventory.at, self._clock()):
                known = self._sightings.setdefault(cluster_id, {})
                known.update(merge(known, looked_at, inventory))
                self._looks[cluster_id] = inventory.at
            return self.workers(cluster_id)

    def workers(self, cluster_id: str) -> tuple[Worker, ...]:
        with self._lock:
            brought = {
                arrival.instance_id: purchase.id
                for purchase in self._purchases.values()
                if purchase.cluster_id == cluster_id
                for arrival in purchase.arrivals
            }
            return tuple(
                sighting.worker(self._looks[cluster_id], brought.get(key))
                for key, sighting in sorted(self._sightings.get(cluster_id, {}).items())
                if sighting.gone_at is None
            )

    def paid_workers(self, expiring_before: datetime) -> tuple[PaidWorker, ...]:
        with self._lock:
            return tuple(
                PaidWorker(
                    cluster_id, worker.instance_id, worker.instance_type, worker.expires_at, *self._bought(worker)
                )
                for cluster_id in sorted(self._sightings)
                for worker in self.workers(cluster_id)
                if worker.expires_at is None or worker.expires_at < expiring_before
            )

    def _bought(self, worker: Worker) -> tuple[str, Terms, datetime] | tuple[()]:
        purchase = self._purchases.get(worker.purchase_id or 0)
        return (purchase.policy, purchase.terms, purchase.sent_at or purchase.reserved_at) if purchase else ()

    def record(self, evaluations: Sequence[Evaluation]) -> tuple[bool, ...]:
        with self._lock:
            return tuple([self._record(evaluation) for evaluation in evaluations])

    def _record(self, evaluation: Evaluation, purchase_id: int | None = None) -> bool:
        facts, decision = evaluation.facts, evaluation.decision
        previous, _ = self._latest.get(decision.policy, (None, ()))
        stale = is_stale(previous.at if previous else None, decision.at, self._clock())
        news = purchase_id is not None or (not stale and is_news(previous, decision))
        if news:
            self._decided += 1
            self._decisions[self._decided] = evaluation, purchase_id
        if stale:
            return news
        runs = next_runs(facts.policy, facts.history.runs, decision.demand, facts.now)
        self._latest[decision.policy] = decision, runs
        self._readings[decision.policy] = facts.readings
        at = minute(decision.at)
        self._samples[decision.policy, at] = Sample(at, decision.demand, decision.wanted, decision.supply)
        return news

    def decisions(
        self, *, policy: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> tuple[StoredDecision, ...]:
        with self._lock:
            found = [
                StoredDecision(id, evaluation.decision)
                for id, (evaluation, _) in reversed(self._decisions.items())
                if (policy is None or evaluation.decision.policy == policy) and (before_id is None or id < before_id)
            ]
        return tuple(found[:limit])

    def evaluation(self, decision_id: int) -> Evaluation | None:
        with self._lock:
            evaluation, _ = self._decisions.get(decision_id, (None, None))
            return evaluation

    def decision_of(self, purchase_id: int) -> int | None:
        with self._lock:
            return next((id for id, (_, bought_by) in self._decisions.items() if bought_by == purchase_id), None)

    def latest(self) -> Mapping[str, Decision]:
        with self._lock:
            return {policy: decision for policy, (decision, _) in self._latest.items()}

    def readings(self) -> Mapping[str, tuple[CheckReading, ...]]:
        with self._lock:
            return dict(self._readings)

    def samples(self, policy: str, since: datetime) -> tuple[Sample, ...]:
        with self._lock:
            newest = minute(self._latest[policy][0].at) if policy in self._latest else since
            found = [
                sample
                for (name, at), sample in self._samples.items()
                if name == policy and at >= since and newest - SAMPLES_KEPT <= at <= newest
            ]
        return tuple(sorted(found, key=lambda sample: sample.at))

    def reserve(
        self,
        policy: Policy,
        now: datetime,
        holder: str,
        propose: Callable[[History, tuple[Override, ...]], tuple[Evaluation, Purchase | None]],
    ) -> tuple[Evaluation, Purchase | None]:
        with self._lock:
            history = self.histories([policy], now)[policy.name]
            evaluation, purchase = propose(history, self.overrides(now))
            if purchase is not None:
                purchase = replace(purchase, id=len(self._purchases) + 1)
                self._store(purchase)
                self._append(purchase.id, PurchaseEvent(now, None, purchase.state, f"reserved by {holder}", None))
            self._record(evaluation, None if purchase is None else purchase.id)
            return evaluation, purchase

    def begin_sending(self, reserved: Purchase, holder: str, now: datetime) -> str | None:
        with self._lock:
            purchase = self._found(reserved.id)
            if (why_not := why_not_claim(purchase, reserved)) is not None:
                return why_not
            leased = any(lease.cluster_id == purchase.cluster_id and lease.holder == holder for lease in self.holders())
            orders, restoral = self.overrides(now), self.restoral(now)
            why_not = why_not_send(purchase, leased=leased, overrides=orders, restoral=restoral, now=now)
            if why_not is None:
                after = replace(purchase, state=PurchaseState.SENDING, sent_at=now)
            else:
                after = replace(purchase, state=PurchaseState.CANCELLED, ended_at=now, message=why_not)
            self.change(purchase.id, lambda _: after, now, why_not or f"sent by {holder}")
            return why_not

    def change(
        self,
        purchase_id: int,
        next: Callable[[Purchase], Purchase],
        at: datetime,
        what: str,
        author: str | None = None,
    ) -> Purchase:
        with self._lock:
            before = self._found(purchase_id)
            after = changed(before, next(before))
            if after != before:
                self._store(after)
                self._append(purchase_id, PurchaseEvent(at, before.state, after.state, what, author))
            return self._found(purchase_id)

    def _store(self, purchase: Purchase) -> None:
        others = [other for other in self._purchases.values() if other.id != purchase.id]
        if any(other.nonce == purchase.nonce for other in others):
            raise Raced("the nonce was used before")
        same = [other for other in others if other.cluster_id == purchase.cluster_id]
        if purchase.state in UNRESOLVED and any(
            other.state in UNRESOLVED and other.imagined == purchase.imagined for other in same
        ):
            raise Raced("the cluster has an open purchase already")
        arrived = {arrival.instance_id for arrival in purchase.arrivals}
        if any(arrival.instance_id in arrived for other in same for arrival in other.arrivals):
            raise Raced("a worker is another purchase's already")
        self._purchases[purchase.id] = replace(purchase, arrivals=in_order(purchase.arrivals))

    def _append(self, purchase_id: int, event: PurchaseEvent) -> None:
        self._events.setdefault(purchase_id, []).append(event)

    def _found(self, id: int) -> Purchase:
        purchase = self.purchase(id)
        if purchase is None:
            raise NotFound(f"there is no purchase {id}")
        return purchase

    def _told(self, purchases: Collection[Purchase]) -> tuple[Purchase, ...]:
        """The purchases with what the looks say of their workers."""

        def told(purchase: Purchase) -> Purchase:
            seen = self._sightings.get(purchase.cluster_id, {})
            gone = [seen[a.instance_id].gone_at if a.instance_id in seen else None for a in purchase.arrivals]
            if gone == [arrival.gone_at for arrival in purchase.arrivals]:
                return purchase
            pairs = zip(purchase.arrivals, gone, strict=True)
            return replace(purchase, arrivals=tuple(replace(arrival, gone_at=at) for arrival, at in pairs))

        return tuple(told(purchase) for purchase in purchases)

    def purchase(self, id: int) -> Purchase | None:
        with self._lock:
            return self._told([self._purchases[id]])[0] if id in self._purchases else None

    def purchases(
        self,
        *,
        policy: str | None = None,
        states: Collection[PurchaseState] | None = None,
        orders: Collection[int] | None = None,
        before_id: int | None = None,
        limit: int | None = 50,
    ) -> tuple[Purchase, ...]:
        with self._lock:
            found = [
                purchase
                for purchase in reversed(self._purchases.values())
                if (policy is None or purchase.policy == policy)
                and (states is None or purchase.state in states)
                and (orders is None or purchase.order_id in orders)
                and (before_id is None or purchase.id < before_id)
            ]
            return self._told(found[:limit])

    def purchase_events(self, id: int) -> tuple[PurchaseEvent, ...]:
        with self._lock:
            return tuple(self._events.get(id, ()))

    def unsettled(self) -> tuple[Purchase, ...]:
        with self._lock:
            return self._told(
                [p for p in self._purchases.values() if p.state in OPEN or (p.state in LATE and p.arrived < p.asked)]
            )

    def own_tasks(self, cluster_id: str) -> frozenset[str]:
        with self._lock:
            of_cluster = [p.task_id for p in self._purchases.values() if p.cluster_id == cluster_id]
            return frozenset(task_id for task_id in of_cluster if task_id is not None)

    def lease(
        self, holder: str, clusters: Collection[str], ttl: timedelta, keep: Collection[str] = ()
    ) -> frozenset[str]:
        with self._lock:
            return self._leases.lease(holder, clusters, ttl, keep, self._clock())

    def release(self, holder: str) -> None:
        with self._lock:
            self._leases.release(holder)

    def holders(self) -> tuple[Lease, ...]:
        with self._lock:
            return self._leases.holders(self._clock())

    def mark(self, name: MarkName, at: datetime, reason: str, author: str | None = None) -> None:
        with self._lock:
            mark = Mark(name, at, reason, author)
            self._marks.append(mark)
            if name is MarkName.RESTORED:
                for id in self._purchases:
                    self.change(id, copied, at, "the ledger was restored", author)
                for id in to_end(mark, self.overrides(at)):
                    self.end_override(id, *ENDED_BY_RESTORING, at)

    def marks(self) -> tuple[Mark, ...]:
        with self._lock:
            return tuple(self._marks)

    def restoral(self, now: datetime) -> Restoral | None:
        with self._lock:
            return restoral_of(self._marks, now)

    def take_up(self, now: datetime) -> Restoral | None:
        with self._lock:
            if not is_copy(self._marks, now):
                return None
            self.mark(MarkName.RESTORED, now, FOUND_A_COPY)
            return self.restoral(now)

    def now(self) -> datetime:
        return self._clock()

    def in_use(self) -> bool:
        with self._lock:
            sent = any(p.sent_at is not None and not p.imagined for p in self._purchases.values())
            return bool(self._marks) or sent

    def prune(self, now: datetime, keep: timedelta) -> None:
        with self._lock:
            self._samples = {key: s for key, s in self._samples.items() if s.at >= now - SAMPLES_KEPT}
            self._decisions = {
                id: (evaluation, purchase_id)
                for id, (evaluation, purchase_id) in self._decisions.items()
                if purchase_id is not None or evaluation.decision.at >= now - keep
            }

    def concerns(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """Nothing to close."""
