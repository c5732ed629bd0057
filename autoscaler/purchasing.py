"""Purchasing: the one road to money. Reserve, send once, record what was answered, settle what is open.

Automatic and manual purchases pass here and nowhere else. A purchase is a durable row before a byte is sent; it is
claimed by compare-and-swap as the last thing before the request; an unknown outcome is never tried again.
"""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import Protocol

import structlog
from pydantic import SecretStr

from autoscaler import settling
from autoscaler.decision import Evaluation, decide, withheld
from autoscaler.facts import Facts, Reason
from autoscaler.model import (
    Accepted,
    Answer,
    Capacity,
    History,
    Outcome,
    Override,
    Purchase,
    PurchaseState,
    RefusalClass,
    Refused,
    Unclear,
)
from autoscaler.policy import Policy, WorkerSpec
from autoscaler.purchase import (
    Raced,
    answered,
    cancelled,
    terms,
)
from autoscaler.settling import Change, Cloud, Observer, Settling, tell
from autoscaler.threads import Threads

log = structlog.get_logger(__name__)

# Pauses before each attempt to record, as the daemon stops, what a failing ledger will not take.
LAST_ATTEMPTS_SECONDS = (0, 0.1, 0.4, 1.5)

# A cluster whose cloud is mute is settled on in its own thread; the others, and their next round, do not wait for it.
SETTLE_PATIENCE_SECONDS = 10.0

# What was read longer ago than this is not bought for: the next evaluation reads again.
OLDEST_EVALUATION = timedelta(seconds=30)

Propose = Callable[[History, tuple[Override, ...]], tuple[Evaluation, Purchase | None]]


class Seller(Protocol):
    """Who sells workers: the cloud, or a dry run's imagination."""

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer: ...


class Ledger(settling.Ledger, Protocol):
    """Where purchases are kept."""

    def reserve(
        self, policy: Policy, now: datetime, holder: str, propose: Propose
    ) -> tuple[Evaluation, Purchase | None]: ...

    def begin_sending(self, reserved: Purchase, holder: str, now: datetime) -> str | None: ...

    def unsettled(self) -> tuple[Purchase, ...]: ...

    def record(self, evaluations: Sequence[Evaluation]) -> tuple[bool, ...]: ...


class PasswordUnavailable(Exception):
    """The login password of a policy cannot be read, or breaks the cloud's rule; the message never holds it."""


class Stopping(Exception):
    """The daemon stops: no purchase is begun any more, and nothing was decided."""


class AnotherPurchase(Exception):
    """The row of that id is another purchase's: the ledger was restored beneath this process, and ids began anew."""


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
        self._settling = Settling(ledger=ledger, cloud=cloud, observer=observer, clock=clock)
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
        self._threads = Threads("settle")
        self._at_work: dict[str, Future[None]] = {}  # of each cluster, how it was last settled, or still is
        self._recording = threading.Lock()
        self._heard: dict[int, tuple[Change, str]] = {}  # of purchases in hand: what is known here and not recorded

    def buy(self, evaluation: Evaluation) -> tuple[Evaluation, bool]:
        """Reserve what the evaluation decided and hand it to the pool.

        Returns the evaluation as it then stands, recorded, and whether that is news. Raises Stopping, and what the
        ledger raises: nothing is then bought.
        """
        age = self._clock() - evaluation.facts.now
        if age > OLDEST_EVALUATION:
            return self._withhold(evaluation, Reason.GAP, f"its readings were taken {age.total_seconds():.0f} s ago")
        if age < -OLDEST_EVALUATION:
            why = f"the clock was set back by {-age.total_seconds():.0f} s since its readings were taken"
            return self._withhold(evaluation, Reason.CLOCK, why)
        try:
            password = self._password(evaluation.facts.policy)
        except PasswordUnavailable as error:
            return self._withhold(evaluation, Reason.NO_PASSWORD, str(error))
        for _ in range(2):  # a lost race decides again, once
            with suppress(Raced):
                return self._reserve(evaluation.facts, password), True
        return self._withhold(evaluation, Reason.RACED, "another replica bought for this cluster at the same moment")

    def settle_all(self, now: datetime) -> None:
        """Move every open purchase on by what the cloud shows; cheap and safe to repeat.

        All clusters are settled at the same time; one that has not come back from the round before is left alone.
        """
        self._record_heard()
        with self._reserving:
            in_hand = frozenset(self._in_hand)
            unsettled = self._ledger.unsettled()
        held = self._held()
        by_cluster = sorted((row for row in unsettled if row.cluster_id in held), key=lambda row: row.cluster_id)
        for cluster_id, purchases in groupby(by_cluster, key=lambda row: row.cluster_id):
            before = self._at_work.get(cluster_id)
            if before is None or before.done():
                rows = tuple(purchases)
                free = [row for row in rows if row.id not in in_hand]
                self._at_work[cluster_id] = self._threads.submit(
                    self._settle, cluster_id, free, now, in_hand=len(free) < len(rows)
                )
        wait(self._at_work.values(), timeout=SETTLE_PATIENCE_SECONDS)

    def _settle(self, cluster_id: str, purchases: Sequence[Purchase], now: datetime, *, in_hand: bool) -> None:
        try:
            self._settling.settle(cluster_id, purchases, now, in_hand=in_hand)
        except Exception:
            log.exception("settle.failed", cluster_id=cluster_id)

    def remind(self) -> None:
        """Tell once more of each purchase whose outcome nobody knows: a person has to settle it."""
        for purchase in self._ledger.unsettled():
            if purchase.state is PurchaseState.UNKNOWN:
                tell(purchase, "still unknown")

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
            change, what = heard
            self._heard[purchase.id] = partial(_of_this_one, nonce=purchase.nonce, change=change), what
            self._record_heard()
        else:
            self._in_hand.pop(purchase.id, None)

    def _attempt(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> tuple[Change, str] | None:
        """Send it, once; what is to be recorded of it, or None where the ledger forbade it: then nothing is."""
        if self._stopping.is_set():
            return partial(_unsent, now=self._clock(), why="the daemon stopped before it was sent"), "not sent"
        try:
            why_not = self._ledger.begin_sending(purchase, self._holder, self._clock())
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
                    self._settling.apply(purchase_id, change, what)
                except AnotherPurchase:
                    log.error("purchase.lost", purchase=purchase_id, what=what)
                except Exception:
                    # The log is then the only place that has it.
                    log.exception("purchase.unrecorded", purchase=purchase_id, what=what)
                    continue
                del self._heard[purchase_id]
                self._in_hand.pop(purchase_id, None)


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


def _of_this_one(purchase: Purchase, nonce: str, change: Change) -> Purchase:
    if purchase.nonce != nonce:
        raise AnotherPurchase
    return change(purchase)


def _said(answer: Answer) -> str:
    match answer:
        case Accepted(task_id):
            return f"answered: accepted as task {task_id}"
        case Refused(_, code, message):
            return f"answered: refused ({code}: {message})"
        case Unclear(detail):
            return f"answered: unclear ({detail})"
