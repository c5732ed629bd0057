"""Purchasing: the one road to money. Reserve, send once, record what was answered, settle what is open.

Automatic and manual purchases pass here and nowhere else. A purchase is a durable row before a byte is sent; it is
claimed by compare-and-swap as the last thing before the request; an unknown outcome is never tried again.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Protocol

import structlog
from pydantic import SecretStr

from autoscaler.decision import Evaluation, decide, withheld
from autoscaler.facts import Facts, Reason
from autoscaler.model import (
    Accepted,
    Answer,
    Capacity,
    Gap,
    History,
    Inventory,
    Outcome,
    Override,
    Purchase,
    PurchaseState,
    RefusalClass,
    Refused,
    Task,
    Unclear,
    Worker,
)
from autoscaler.policy import Policy, WorkerSpec
from autoscaler.purchase import (
    OPEN,
    Evidence,
    Raced,
    abandoned,
    answered,
    arrive_imagined,
    cancelled,
    next_state,
    terms,
)
from autoscaler.supply import term_ends_at

log = structlog.get_logger(__name__)

# Pauses before each attempt to record, as the daemon stops, what a failing ledger will not take.
LAST_ATTEMPTS_SECONDS = (0, 0.1, 0.4, 1.5)

Change = Callable[[Purchase], Purchase]
Propose = Callable[[History, tuple[Override, ...]], tuple[Evaluation, Purchase | None]]


class Seller(Protocol):
    """Who sells workers: the cloud, or a dry run's imagination."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer: ...


class Cloud(Protocol):
    """What the cloud shows of purchases already made."""

    def inventory(self, cluster_id: str) -> Inventory | Gap: ...

    def task(self, task_id: str) -> Task | Gap | None: ...


class Ledger(Protocol):
    """Where purchases are kept."""

    def reserve(
        self, policy: Policy, now: datetime, holder: str, propose: Propose
    ) -> tuple[Evaluation, Purchase | None]: ...

    def begin_sending(self, purchase_id: int, holder: str, now: datetime) -> str | None: ...

    def change(
        self, purchase_id: int, next: Change, at: datetime, what: str, author: str | None = None
    ) -> Purchase: ...

    def unsettled(self) -> tuple[Purchase, ...]: ...

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]: ...

    def own_tasks(self, cluster_id: str) -> frozenset[str]: ...

    def record(self, evaluations: Sequence[Evaluation]) -> tuple[bool, ...]: ...


class PasswordUnavailable(Exception):
    """The login password of a policy cannot be read, or breaks the cloud's rule; the message never holds it."""


class Stopping(Exception):
    """The daemon stops: no purchase is begun any more, and nothing was decided."""


class Observer(Protocol):
    """Whoever counts purchases."""

    def purchases_changed(self, purchases: Iterable[Purchase]) -> None: ...


class Purchasing:
    """Reserves, sends and settles purchases."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        cloud: Cloud,
        seller: Callable[[Purchase], Seller],
        password: Callable[[Policy], SecretStr],
        observer: Observer,
        clock: Callable[[], datetime],
        holder: str,
        held: Callable[[], frozenset[str]],
        senders: int = 4,
    ) -> None:
        """``password`` raises PasswordUnavailable; ``held`` tells the clusters whose lease this process holds."""
        self._ledger = ledger
        self._cloud = cloud
        self._seller = seller
        self._password = password
        self._observer = observer
        self._clock = clock
        self._holder = holder
        self._held = held
        self._pool = ThreadPoolExecutor(senders, thread_name_prefix="send")
        self._stopping = threading.Event()
        # Held from a reservation until its purchase is in hand, lest settling finds a row that seems to be nobody's.
        self._reserving = threading.Lock()
        self._in_hand: dict[int, str] = {}  # clusters of purchases reserved here whose outcome is not recorded yet
        self._recording = threading.Lock()
        self._heard: dict[int, tuple[Change, str]] = {}  # of purchases in hand: what is known here and not recorded

    def buy(self, evaluation: Evaluation) -> tuple[Evaluation, bool]:
        """Reserve what the evaluation decided and hand it to the pool.

        Returns the evaluation as it then stands, recorded, and whether that is news. Raises Stopping, and what the
        ledger raises: nothing is then bought.
        """
        try:
            password = self._password(evaluation.facts.policy)
        except PasswordUnavailable as error:
            return self._withhold(evaluation, Reason.NO_PASSWORD, str(error))
        for _ in range(2):  # a lost race decides again, once
            with suppress(Raced):
                return self._reserve(evaluation.facts, password), True
        return self._withhold(evaluation, Reason.RACED, "another replica bought for this cluster at the same moment")

    def settle_all(self, now: datetime) -> None:
        """Move every open purchase on by what the cloud shows; cheap and safe to repeat."""
        self._record_heard()
        with self._reserving:
            in_hand = frozenset(self._in_hand)
            rows = self._ledger.unsettled()
        held = self._held()
        by_cluster = sorted((row for row in rows if row.cluster_id in held), key=lambda row: row.cluster_id)
        for cluster_id, purchases in groupby(by_cluster, key=lambda row: row.cluster_id):
            try:
                self._settle_cluster(cluster_id, [row for row in purchases if row.id not in in_hand], now)
            except Exception:
                log.exception("settle.failed", cluster_id=cluster_id)

    def remind(self) -> None:
        """Tell once more of each purchase whose outcome nobody knows: a person has to settle it."""
        for purchase in self._ledger.unsettled():
            if purchase.state is PurchaseState.UNKNOWN:
                _tell(purchase, "still unknown")

    def sending(self) -> frozenset[str]:
        """The clusters with a purchase in hand: reserved here, and its outcome not yet recorded."""
        return frozenset(self._in_hand.values())

    def close(self) -> None:
        """Send nothing more; wait for what is being sent, and record it."""
        self._stopping.set()
        with self._reserving:  # a reservation under way still hands over its purchase
            self._pool.shutdown(wait=False)
        self._pool.shutdown(wait=True)
        for pause in LAST_ATTEMPTS_SECONDS:
            time.sleep(pause)
            self._record_heard()
            if not self._heard:
                return

    def _withhold(self, evaluation: Evaluation, reason: Reason, why: str) -> tuple[Evaluation, bool]:
        held = withheld(evaluation, reason, why)
        (news,) = self._ledger.record([held])
        return held, news

    def _reserve(self, facts: Facts, password: SecretStr) -> Evaluation:
        with self._reserving:
            if self._stopping.is_set():
                raise Stopping("the daemon stops")
            # Not the evaluation's own time: an order given while a slow cloud was looked at holds for this purchase.
            now = self._clock()
            proposal = self._proposal(replace(facts, now=now))
            evaluation, purchase = self._ledger.reserve(facts.policy, now, self._holder, proposal)
            if purchase is None:
                return evaluation
            self._in_hand[purchase.id] = purchase.cluster_id
            self._pool.submit(self._send, purchase, facts.policy.worker, password)
        self._observer.purchases_changed([purchase])
        return evaluation

    def _proposal(self, facts: Facts) -> Propose:
        def propose(history: History, overrides: tuple[Override, ...]) -> tuple[Evaluation, Purchase | None]:
            named = tuple(order for order in overrides if order.names(facts.policy.name))
            fresh = replace(facts, history=history, overrides=named)
            evaluation = Evaluation(fresh, decide(fresh))
            if evaluation.decision.outcome is not Outcome.SCALE_OUT:
                return evaluation, None
            return evaluation, intended(evaluation, secrets.token_hex(16), facts.now)

        return propose

    def _send(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> None:
        try:
            heard = self._attempt(purchase, worker, password)
        except Exception:
            # The row stays as it is: settling cancels an intended one, and makes a sending one unknown.
            log.exception("purchase.failed", purchase=purchase.id, policy=purchase.policy)
            heard = None
        if heard is not None:
            self._heard[purchase.id] = heard
            self._record_heard()
        else:
            self._in_hand.pop(purchase.id, None)

    def _attempt(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> tuple[Change, str] | None:
        """Send it, once; what is to be recorded of it, or None where the ledger forbade it and has recorded that."""
        if self._stopping.is_set():
            return partial(_unsent, now=self._clock(), why="the daemon stopped before it was sent"), "not sent"
        try:
            why_not = self._ledger.begin_sending(purchase.id, self._holder, self._clock())
        except Exception:
            # The claim may have been written all the same; but nothing was sent, and nobody else will send it.
            log.exception("purchase.unclaimed", purchase=purchase.id, policy=purchase.policy)
            return partial(_unsent, now=self._clock(), why="the ledger did not confirm the claim"), "not sent"
        if why_not is not None:
            log.warning("purchase.not_sent", purchase=purchase.id, policy=purchase.policy, why=why_not)
            return None
        log.info("purchase.sending", purchase=purchase.id, policy=purchase.policy, asked=purchase.asked)
        answer = self._ask(purchase, worker, password)
        return partial(answered, answer=answer, now=self._clock()), _said(answer)

    def _ask(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        try:
            return self._seller(purchase).scale_out(purchase, worker, password)
        except Exception as error:
            # Whatever it was, it came after the claim: nobody can say that nothing was sent.
            log.exception("purchase.unclear", purchase=purchase.id)
            return Unclear(f"the request failed: {type(error).__name__}")

    def _record_heard(self) -> None:
        """Record what is known here and not in the ledger; what it will not take now is kept for the next time."""
        with self._recording:
            for purchase_id, (change, what) in tuple(self._heard.items()):
                try:
                    self._apply(purchase_id, change, what)
                except Exception:
                    # The log is then the only place that has it.
                    log.exception("purchase.unrecorded", purchase=purchase_id, what=what)
                    continue
                del self._heard[purchase_id]
                self._in_hand.pop(purchase_id, None)

    def _settle_cluster(self, cluster_id: str, purchases: Sequence[Purchase], now: datetime) -> None:
        for purchase in purchases:
            if purchase.imagined:
                self._change(purchase, partial(_imagine, now=now), "as a dry run imagines it")
            elif purchase.state in (PurchaseState.INTENDED, PurchaseState.SENDING):
                self._change(purchase, partial(abandoned, now=now), "its process is gone")
        # Of ended ones, workers may turn up for as long as they were paid for.
        real = [p for p in purchases if not p.imagined and (p.state in OPEN or now < term_ends_at(p))]
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
        for purchase in sorted(real, key=lambda p: (p.state not in OPEN, p.id)):  # open ones take their workers first
            claimed = frozenset(instance for instance, owner in taken.items() if owner != purchase.id)
            by_nodes = Evidence(look.at, workers, task=None, strangers=strangers, claimed=claimed)
            try:
                settled = self._settle(purchase, by_nodes, now)
            except Exception:
                log.exception("settle.failed", cluster_id=cluster_id, purchase=purchase.id)
                continue
            taken.update((arrival.instance_id, purchase.id) for arrival in settled.arrivals)

    def _settle(self, purchase: Purchase, by_nodes: Evidence, now: datetime) -> Purchase:
        """Move one purchase on by its task and the nodes; by the nodes alone where its task cannot be asked for."""
        task = None
        if purchase.task_id is not None:
            if purchase.state not in OPEN and next_state(purchase, by_nodes, now) == purchase:
                return purchase  # a latecomer shows among the nodes; its task, of weeks ago, is asked for only then
            task_or_gap = self._cloud.task(purchase.task_id)
            if not isinstance(task_or_gap, Gap):
                task = task_or_gap
            elif by_nodes.at < (purchase.sent_at or purchase.signed_at) + purchase.terms.provision_timeout:
                return purchase  # its task will tell more than the nodes do, and there is time
        seen = partial(next_state, evidence=replace(by_nodes, task=task), now=now)
        return self._change(purchase, seen, "by what the cloud shows")

    def _change(self, purchase: Purchase, change: Change, what: str) -> Purchase:
        return purchase if change(purchase) == purchase else self._apply(purchase.id, change, what)

    def _apply(self, purchase_id: int, change: Change, what: str) -> Purchase:
        """Apply a transition to the row as it stands now, and tell of it."""
        changed = self._ledger.change(purchase_id, change, self._clock(), what)
        self._observer.purchases_changed([changed])
        _tell(changed, what)
        return changed


def intended(evaluation: Evaluation, nonce: str, at: datetime) -> Purchase:
    """The row of a purchase that an evaluation asks for, as it is reserved at ``at``; the ledger gives it its id."""
    facts, decision = evaluation.facts, evaluation.decision
    policy = facts.policy
    if decision.supply is None or not isinstance(facts.capacity, Capacity):
        raise ValueError("a purchase needs a count of the workers")
    return Purchase(
        id=0,
        policy=policy.name,
        policy_version=policy.version,
        cluster_id=policy.cluster_id,
        state=PurchaseState.INTENDED,
        asked=decision.add,
        terms=terms(policy),
        imagined=policy.dry_run,
        nonce=nonce,
        signed_at=at,
        reserved_at=at,
        endpoint=facts.endpoint,
        credential=facts.credential,
        shared_budgets=tuple(budget.shared for budget in policy.limits.budgets if budget.shared is not None),
        supply_before=decision.supply.total,
        tasks_before=facts.capacity.tasks,
        order_id=decision.order_id,
    )


def _unsent(purchase: Purchase, now: datetime, why: str) -> Purchase:
    """A purchase that this process had in hand and surely did not send, whether or not its claim was written."""
    refusal = Refused(RefusalClass.LATER, "NotSent", why)
    return answered(cancelled(purchase, now, why), refusal, now)


def _imagine(purchase: Purchase, now: datetime) -> Purchase:
    """A dry run's purchase needs no evidence, since nobody else ever heard of it; one left half sent is taken."""
    if purchase.state in (PurchaseState.SENDING, PurchaseState.UNKNOWN):
        return answered(purchase, Accepted(f"imagined-{purchase.nonce}"), now)
    return arrive_imagined(abandoned(purchase, now), now)


def _said(answer: Answer) -> str:
    match answer:
        case Accepted(task_id):
            return f"answered: accepted as task {task_id}"
        case Refused(_, code, message):
            return f"answered: refused ({code}: {message})"
        case Unclear(detail):
            return f"answered: unclear ({detail})"


def _tell(purchase: Purchase, what: str) -> None:
    match purchase.state, purchase.refusal:
        case PurchaseState.REJECTED, RefusalClass.BUSY | RefusalClass.LATER:
            tell = log.warning
        case PurchaseState.UNKNOWN | PurchaseState.FAILED | PurchaseState.EXPIRED | PurchaseState.REJECTED, _:
            tell = log.error  # a person must hear of it
        case _:
            tell = log.info
    tell(
        f"purchase.{purchase.state.value}",
        purchase=purchase.id,
        policy=purchase.policy,
        asked=purchase.asked,
        arrived=purchase.arrived,
        failed=purchase.failed,
        outstanding=purchase.outstanding,
        why=purchase.message or what,
    )
