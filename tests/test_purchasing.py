"""The one road to money, from a decision to what the cloud sold.

The real cloud client buys from a local edge cloud that writes down every sale; whatever a test does to the answers, the
ledger or the process, each sale has in the end exactly one purchase, and each purchase at most one sale.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from autoscaler.cloud import Cloud, ImaginedCloud
from autoscaler.controller import Controller
from autoscaler.decision import Evaluation
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerUnavailable, MemoryLedger, open_ledger
from autoscaler.model import Answer as CloudAnswer
from autoscaler.model import Outcome, OverrideKind, Purchase, PurchaseState
from autoscaler.policy import Policy, WorkerSpec
from autoscaler.purchase import NOTHING_BOUGHT, Raced
from autoscaler.purchasing import PasswordUnavailable, Purchasing, Stopping
from autoscaler.sandbox import (
    TEST_CREDENTIALS,
    Answer,
    Cut,
    Fate,
    Fault,
    Late,
    Listing,
    SandboxCloud,
    Shape,
    Truncated,
    throttled,
)
from autoscaler.signing import Credential
from tests.build import CLUSTER_ID, NOW, policy
from tests.fakes import Clock, FakeReader, FlakyLedger, Observed, until

JOIN = timedelta(minutes=10)
DAY = timedelta(days=1)
LOST = LedgerUnavailable("the ledger cannot be used: disk I/O error", "see that the database answers")
((KEY_ID, KEY_SECRET),) = TEST_CREDENTIALS.items()


class Market:
    """A cluster of ten workers, a policy that watches it, and all that stands between its decisions and the cloud."""

    def __init__(self, ledger: Any, clock: Clock, sandbox: SandboxCloud) -> None:
        self.clock = clock
        self.sandbox = sandbox
        self.ledger = FlakyLedger(ledger)
        self.reader = FakeReader()
        self.policy = policy()
        self.password: Callable[[Policy], SecretStr] = lambda policy: SecretStr("Sandbox-0nly!")
        self.at_send: Callable[[], object] = lambda: None  # run once in the sending thread, after the claim
        self.open: list[Purchasing] = []
        self.cloud = Cloud(
            sandbox.url,
            lambda: Credential(KEY_ID, SecretStr(KEY_SECRET)),
            timeout=timedelta(seconds=1),
            clock=clock,
            kept_for=timedelta(0),
            poll_interval=timedelta(0),
        )
        self.purchasing = self.process("daemon-1")

    def process(self, holder: str, *clusters: str) -> Purchasing:
        """Another daemon over the same ledger, which holds the clusters as far as nobody else does."""
        held = self.ledger.lease(holder, clusters or (CLUSTER_ID,), DAY)
        self.purchasing = Purchasing(
            ledger=self.ledger,
            cloud=self.cloud,
            seller=lambda purchase: ImaginedCloud() if purchase.imagined else self,
            password=lambda policy: self.password(policy),
            observer=Observed(),
            clock=self.clock,
            holder=holder,
            held=lambda: held,
        )
        self.open.append(self.purchasing)
        return self.purchasing

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> CloudAnswer:
        at_send, self.at_send = self.at_send, lambda: None
        at_send()
        return self.cloud.scale_out(purchase, worker, password)

    def evaluate(self, wanted: int, *, now: datetime | None = None) -> Evaluation:
        """Evaluate the policy with a load for so many workers."""
        (evaluation,) = self.round(wanted, now)
        return evaluation

    def round(self, wanted: int, now: datetime | None = None) -> list[Evaluation]:
        self.reader.answers["sum(live_sessions)"] = wanted * 400
        controller = Controller(
            readers={"default": self.reader},
            cloud=self.cloud,
            ledger=self.ledger,
            purchasing=self.purchasing,
            observer=Observed(),
        )
        controller.know([self.policy], {"default": self.reader})
        return controller.evaluate([self.policy], now or self.clock())

    def buy(self, wanted: int = 13) -> Purchase:
        """Evaluate, and wait until what came of it is recorded."""
        evaluation = self.evaluate(wanted)
        assert evaluation.decision.outcome is Outcome.SCALE_OUT, evaluation.decision.sentence
        self.settled_down()
        return self.last

    def settled_down(self) -> None:
        until(lambda: not self.purchasing.sending())

    def settle(self, **after: float) -> Purchase:
        """Settle after so long; the newest purchase."""
        self.purchasing.settle_all(self.clock.advance(**after))
        return self.last

    @property
    def last(self) -> Purchase:
        newest: Purchase = self.ledger.purchases()[0]
        return newest

    def events(self, purchase: Purchase) -> list[str]:
        return [event.after.value for event in self.ledger.purchase_events(purchase.id)]

    def freeze(self) -> None:
        self.order(OverrideKind.FREEZE)

    def order(self, kind: OverrideKind, workers: int | None = None) -> None:
        now = self.clock()
        self.ledger.add_override(kind, ("*",), workers, "ana", "derby tonight", now, now + DAY)

    def audit(self) -> None:
        """Compare what was sold with what is in the ledger, order by order and nonce by nonce."""
        purchases = self.ledger.purchases(limit=None)
        by_nonce = {purchase.nonce: purchase for purchase in purchases}
        assert len(by_nonce) == len(purchases)
        sold = [order for order in self.sandbox.orders if order.origin == "api"]
        assert len({order.nonce for order in sold}) == len(sold)
        for order in sold:
            purchase = by_nonce[order.nonce]
            assert (order.count, order.cluster_id) == (purchase.asked, purchase.cluster_id)
            assert purchase.state not in NOTHING_BOUGHT
            assert purchase.task_id in (None, order.task_id)
            assert {arrival.instance_id for arrival in purchase.arrivals} <= set(order.instance_ids)
        nonces = {order.nonce for order in sold}
        for purchase in purchases:
            if purchase.state in {"accepted", "fulfilled", "failed", "expired"} and not purchase.imagined:
                assert purchase.nonce in nonces
        sent = [r.nonce for r in self.sandbox.requests if r.method == "POST"]
        assert len(set(sent)) == len(sent), "a purchase was sent twice"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def clock() -> Clock:
    return Clock()


def markets(ledger: Any, clock: Clock) -> Iterator[Market]:
    with SandboxCloud(clock=clock, join_delay=JOIN) as sandbox:
        sandbox.add_cluster(CLUSTER_ID, workers=10)
        market = Market(ledger, clock, sandbox)
        yield market
        for purchasing in market.open:
            purchasing.close()
        market.audit()


@pytest.fixture
def market(clock: Clock) -> Iterator[Market]:
    yield from markets(MemoryLedger(clock=clock), clock)


# --- the usual way ---


def test_a_purchase_is_reserved_sold_once_and_arrives(market: Market) -> None:
    evaluation = market.evaluate(13)
    assert evaluation.decision.sentence == 'scale out by 3 at 10: "sessions" wants 13 (5200 at 400 each)'
    market.settled_down()
    assert (market.last.state, market.last.asked) == (PurchaseState.ACCEPTED, 3)
    assert market.last.task_id == market.sandbox.orders[0].task_id
    assert market.settle(minutes=5).state is PurchaseState.ACCEPTED
    assert market.settle(minutes=6).state is PurchaseState.FULFILLED
    assert {arrival.instance_id for arrival in market.last.arrivals} == set(market.sandbox.orders[0].instance_ids)
    assert market.events(market.last) == ["intended", "sending", "accepted", "accepted", "fulfilled"]
    assert market.evaluate(13).decision.reason is Reason.ENOUGH


def test_the_decision_and_its_intent_are_one_transaction(market: Market) -> None:
    market.ledger.before["begin_sending"] = lambda: stored.extend(market.ledger.decisions())
    stored: list[Any] = []
    purchase = market.buy()
    (before_the_send,) = stored
    assert (before_the_send.decision.add, before_the_send.decision.outcome) == (purchase.asked, Outcome.SCALE_OUT)


# --- a ledger that fails ---


def test_without_a_ledger_nothing_is_decided_or_bought(market: Market) -> None:
    market.ledger.fail("reserve", LOST)
    assert market.round(13) == []
    assert (market.ledger.purchases(), market.ledger.decisions(), market.sandbox.orders) == ((), (), [])


def test_a_reservation_that_is_not_confirmed_is_not_sent_and_is_cancelled_later(market: Market) -> None:
    market.ledger.fail("reserve", LOST, written=True)
    assert market.round(13) == []
    assert market.last.state is PurchaseState.INTENDED
    assert market.evaluate(14).decision.reason is Reason.PURCHASE_OPEN
    assert market.settle(seconds=15).state is PurchaseState.CANCELLED
    assert market.sandbox.orders == []
    assert market.buy().state is PurchaseState.ACCEPTED


@pytest.mark.parametrize(
    ("written", "state"),
    [
        pytest.param(False, "cancelled", id="the claim was not written"),
        pytest.param(True, "rejected", id="the claim was written, without a word"),
    ],
)
def test_a_claim_that_is_not_confirmed_is_not_sent_and_surely_bought_nothing(
    market: Market, written: bool, state: str
) -> None:
    market.ledger.fail("begin_sending", LOST, written=written)
    assert market.buy().state == state
    assert market.last.message == "the ledger did not confirm the claim"
    assert market.sandbox.orders == []


def test_an_answer_is_kept_while_the_ledger_fails_and_recorded_later(market: Market) -> None:
    market.ledger.fail("change", LOST, times=2)
    with capture_logs() as logs:
        market.evaluate(13)
        until(lambda: market.ledger.calls.count("change") == 1)
        market.settle(seconds=15)
    task_id = market.sandbox.orders[0].task_id
    unrecorded = [entry["what"] for entry in logs if entry["event"] == "purchase.unrecorded"]
    assert unrecorded == [f"answered: accepted as task {task_id}"] * 2  # the log has it meanwhile
    assert market.last.state is PurchaseState.SENDING  # and not unknown: its answer is in hand
    assert market.settle(seconds=15).state is PurchaseState.ACCEPTED
    assert market.last.answered_at == NOW
    assert not market.purchasing.sending()


def test_what_was_heard_of_a_purchase_that_a_restored_ledger_lacks_is_not_said_of_another(market: Market) -> None:
    market.sandbox.fail_next(throttled())
    market.ledger.fail("change", LOST, times=2)
    market.evaluate(13)
    until(lambda: market.ledger.calls.count("change") == 1)
    first, answers = market.purchasing, threading.Event()
    market.ledger._ledger = MemoryLedger(clock=market.clock)  # its ids begin anew
    market.process("daemon-2")
    market.at_send = lambda: answers.wait(5)
    market.evaluate(13)
    until(lambda: market.last.state is PurchaseState.SENDING)
    market.ledger.heal()
    with capture_logs() as logs:
        first.settle_all(market.clock())
    assert [entry["what"] for entry in logs if entry["event"] == "purchase.lost"] == [
        "answered: refused (Throttling.User: Request was denied due to user flow control.)"
    ]
    assert market.last.state is PurchaseState.UNKNOWN  # it is in nobody's hands here; and surely not refused
    assert not first.sending()
    answers.set()
    market.settled_down()
    assert market.last.state is PurchaseState.ACCEPTED


# --- what forbids the send ---


@pytest.mark.parametrize(
    ("during", "meanwhile", "why"),
    [
        pytest.param("begin_sending", Market.freeze, "frozen by ana: derby tonight", id="a person froze it"),
        pytest.param(
            "reserve",
            lambda market: market.clock.advance(seconds=31),
            "it was reserved 31 s ago, and 30 s is the limit",
            id="31 seconds passed",
        ),
        pytest.param(
            "begin_sending",
            lambda market: market.ledger.release("daemon-1"),
            "the lease of its cluster is not held by this daemon",
            id="the lease was lost",
        ),
    ],
)
def test_what_happens_between_reservation_and_send_can_forbid_it(
    market: Market, during: str, meanwhile: Callable[[Market], object], why: str
) -> None:
    market.ledger.before[during] = partial(meanwhile, market)
    purchase = market.buy()
    assert (purchase.state, purchase.message) == (PurchaseState.CANCELLED, why)
    assert market.sandbox.orders == []


def test_a_cap_given_while_a_slow_cloud_was_looked_at_bounds_the_purchase(market: Market) -> None:
    market.clock.advance(seconds=20)
    market.order(OverrideKind.CAP, 11)
    assert market.evaluate(13, now=NOW).decision.add == 1
    market.settled_down()
    assert market.last.asked == 1


def test_a_freeze_given_while_a_slow_cloud_was_looked_at_is_no_intent(market: Market) -> None:
    market.clock.advance(seconds=20)
    market.freeze()
    assert market.evaluate(13, now=NOW).decision.reason is Reason.FREEZE
    assert market.ledger.purchases() == ()


@pytest.mark.parametrize(
    ("losses", "reason", "bought"), [(1, Reason.NEEDED, 1), (2, Reason.RACED, 0)], ids=["lost once", "lost twice"]
)
def test_a_lost_race_decides_again_once_and_then_holds(
    market: Market, losses: int, reason: Reason, bought: int
) -> None:
    market.ledger.fail("reserve", Raced("another writer was first"), times=losses)
    evaluation = market.evaluate(13)
    market.settled_down()
    assert evaluation.decision.reason is reason
    assert [stored.decision.reason for stored in market.ledger.decisions()] == [reason]
    assert len(market.sandbox.orders) == bought


def test_without_a_password_nothing_is_reserved_and_it_is_news_once(market: Market) -> None:
    def unavailable(policy: Policy) -> SecretStr:
        raise PasswordUnavailable("the workers' login password cannot be read: EDGE_LOGIN_PASSWORD is not set")

    market.password = unavailable
    with capture_logs() as logs:
        decisions = [market.evaluate(13).decision for _ in range(2)]
    assert [(d.outcome, d.reason, d.add) for d in decisions] == [(Outcome.BLOCKED, Reason.NO_PASSWORD, 0)] * 2
    assert decisions[0].sentence.startswith("blocked: the workers' login password cannot be read")
    assert "reserve" not in market.ledger.calls
    assert [entry["log_level"] for entry in logs if entry["event"] == "policy.evaluated"] == ["info", "debug"]


# --- answers ---

REFUSALS: dict[str, tuple[Answer, str, Reason]] = {
    "throttled with 503": (throttled(), "later", Reason.BACKOFF),
    "no stock": (Answer(400, "InventoryExceeded", "no stock"), "later", Reason.BACKOFF),
    "no balance, told in XML": (Answer(400, "InsufficientBalance", "no", Shape.XML), "later", Reason.BACKOFF),
    "a busy cluster": (Answer(400, "InvalidStatus.Cluster", "scaling"), "busy", Reason.BACKOFF),
    "a wrong signature": (Answer(400, "SignatureDoesNotMatch", "no"), "account", Reason.REFUSED_ACCOUNT),
    "a missing permission": (Answer(403, "Forbidden.RAM", "no"), "account", Reason.REFUSED_ACCOUNT),
    "a wrong parameter": (Answer(400, "InvalidParameter.Image", "no"), "policy", Reason.REFUSED_POLICY),
    "an operation that is gone": (Answer(404, "InvalidApi.NotFound", "no"), "gone", Reason.REFUSED_GONE),
}


@pytest.mark.parametrize(("answer", "refusal", "reason"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_bought_nothing_and_waits_for_what_its_class_says(
    market: Market, answer: Answer, refusal: str, reason: Reason
) -> None:
    market.sandbox.fail_next(answer)
    purchase = market.buy()
    assert (purchase.state, purchase.refusal, purchase.code) == (PurchaseState.REJECTED, refusal, answer.code)
    market.clock.advance(seconds=1)
    assert market.evaluate(13).decision.reason is reason
    assert market.sandbox.orders == []
    market.clock.advance(days=1)
    assert (market.evaluate(13).decision.outcome is Outcome.SCALE_OUT) is (refusal in ("later", "busy"))
    market.settled_down()


def test_a_connection_that_was_never_made_bought_nothing(market: Market) -> None:
    market.at_send = market.sandbox.close
    purchase = market.buy()
    assert (purchase.state, purchase.code) == (PurchaseState.REJECTED, "ConnectError")
    market.sandbox.start()


UNCLEAR: dict[str, tuple[Fault, bool]] = {
    "cut before selling": (Cut(sold=False), False),
    "cut after selling": (Cut(sold=True), True),
    "reset after selling": (Cut(sold=True, reset=True), True),
    "half an answer": (Truncated(), True),
    "500 after selling": (Answer(500, "InternalError", "oops", sold=True), True),
    "an answer that is too late": (Late(timedelta(seconds=3)), True),
    "a nonce used before": (Answer(400, "SignatureNonceUsed", "used"), False),
    "a code nobody lists": (Answer(400, "Surprise", "?", sold=True), True),
}


@pytest.mark.parametrize(("fault", "sold"), UNCLEAR.values(), ids=UNCLEAR.keys())
def test_an_unclear_answer_is_unknown_and_is_not_tried_again(market: Market, fault: Fault, sold: bool) -> None:
    market.sandbox.fail_next(fault)
    with capture_logs() as logs:
        assert market.buy().state is PurchaseState.UNKNOWN
    assert ("purchase.unknown", "error") in [(entry["event"], entry["log_level"]) for entry in logs]
    assert "the outcome of purchase 1 (3 workers) is unknown" in market.evaluate(13).decision.sentence
    assert market.evaluate(14).decision.reason is Reason.PURCHASE_UNKNOWN
    assert market.settle(minutes=4).state is PurchaseState.UNKNOWN  # a colleague's may still be the first to show
    settled = market.settle(minutes=2)
    assert settled.state is (PurchaseState.ACCEPTED if sold else PurchaseState.UNKNOWN)
    assert len(market.sandbox.orders) == sold


def test_an_exception_in_the_client_is_unknown(market: Market) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    market.at_send = fail
    assert (market.buy().state, market.last.message) == (PurchaseState.UNKNOWN, "the request failed: RuntimeError")


def test_an_unknown_purchase_is_adopted_by_its_task_and_then_arrives(market: Market) -> None:
    market.sandbox.fail_next(Cut(sold=True))
    market.buy()
    adopted = market.settle(minutes=6)
    assert (adopted.state, adopted.adopted, adopted.message) == (PurchaseState.ACCEPTED, True, "found by its task")
    assert market.settle(minutes=11).state is PurchaseState.FULFILLED


def test_an_unknown_purchase_without_a_task_in_the_list_is_adopted_by_its_workers(market: Market) -> None:
    market.sandbox.doom_next(Fate(in_task_list=False))
    market.sandbox.fail_next(Cut(sold=True))
    market.buy()
    adopted = market.settle(minutes=6)
    assert (adopted.adopted, adopted.arrived, adopted.message) == (True, 3, "found by its workers")


def test_a_colleagues_scale_out_leaves_it_unknown(market: Market) -> None:
    market.sandbox.fail_next(Cut(sold=True))
    market.buy()
    market.sandbox.buy_by_console(CLUSTER_ID, 3)
    for _ in range(3):
        assert market.settle(minutes=4).state is PurchaseState.UNKNOWN
    assert market.last.arrivals == ()


def died_sending(market: Market, first: Purchase) -> None:
    """Another purchase like the first, ten seconds later, that never reaches the cloud."""
    market.clock.advance(seconds=10)
    blind = replace(first, state=PurchaseState.INTENDED, nonce="blind", tasks_before=(), task_id=None, sent_at=None)
    blind = replace(blind, signed_at=market.clock(), reserved_at=market.clock())
    evaluation = market.evaluate(13)
    _, second = market.ledger.reserve(market.policy, market.clock(), "daemon-1", lambda *_: (evaluation, blind))
    assert market.ledger.begin_sending(second, "daemon-1", market.clock()) is None


def test_a_task_of_another_purchase_of_ours_is_nobodys_evidence(market: Market) -> None:
    died_sending(market, market.buy())
    for _ in range(3):
        assert market.settle(seconds=15).state is PurchaseState.UNKNOWN


def test_nor_are_its_workers_while_its_own_task_cannot_be_asked_for(market: Market) -> None:
    market.sandbox.set_cluster(CLUSTER_ID, listing=Listing(lag=timedelta(minutes=5)))
    first = market.buy()
    died_sending(market, first)
    assert market.settle(seconds=15).state is PurchaseState.UNKNOWN
    market.sandbox.fail_always(Answer(503, "Throttling", "slow down"), action="DescribeTaskInfo")
    assert market.settle(minutes=11).state is PurchaseState.UNKNOWN
    market.sandbox.heal()
    assert market.settle(seconds=15).state is PurchaseState.UNKNOWN
    settled = market.ledger.purchase(first.id)
    assert (settled.state, settled.arrived) == (PurchaseState.FULFILLED, 3)


# --- processes that come and go ---


def test_an_answer_to_the_process_that_lost_its_lease_is_still_recorded(market: Market) -> None:
    first, answers = market.purchasing, threading.Event()
    market.at_send = lambda: answers.wait(5)
    market.evaluate(13)
    until(lambda: market.last.state is PurchaseState.SENDING)
    market.ledger.release("daemon-1")
    market.process("daemon-2")
    assert market.settle(seconds=16).state is PurchaseState.UNKNOWN
    answers.set()
    until(lambda: not first.sending())
    assert (market.last.state, market.last.adopted) == (PurchaseState.ACCEPTED, False)
    assert market.last.task_id == market.sandbox.orders[0].task_id


@pytest.mark.parametrize(
    ("reached", "after"),
    [
        pytest.param("intended", "cancelled", id="reserved and never claimed: surely unsent"),
        pytest.param("sending", "unknown", id="claimed, and no answer recorded"),
    ],
)
def test_what_a_dead_process_left_is_settled_by_the_holder_of_its_cluster_alone(
    market: Market, reached: str, after: str
) -> None:
    market.ledger.fail("reserve", LOST, written=True)  # the row is there, and nobody's
    assert market.round(13) == []
    if reached == "sending":
        assert market.ledger.begin_sending(market.last, "daemon-1", market.clock()) is None
    market.process("daemon-2")
    assert market.settle(seconds=15).state == reached, "its cluster is not held here"
    market.ledger.release("daemon-1")
    market.process("daemon-2")
    assert market.settle(seconds=15).state == after


def test_what_is_in_hand_is_left_alone_by_settling(market: Market) -> None:
    answers = threading.Event()
    market.at_send = lambda: answers.wait(5)
    market.evaluate(13)
    until(lambda: market.last.state is PurchaseState.SENDING)
    assert market.settle(seconds=15).state is PurchaseState.SENDING
    assert market.purchasing.sending() == {CLUSTER_ID}
    answers.set()
    market.settled_down()
    assert market.last.state is PurchaseState.ACCEPTED


def test_settling_between_a_reservation_and_its_being_in_hand_waits(market: Market) -> None:
    with ThreadPoolExecutor(1) as other:
        settling: list[Any] = []

        def settle_meanwhile() -> None:
            settling.append(other.submit(market.purchasing.settle_all, market.clock()))
            wait(settling, timeout=0.05)  # time enough to take the row for nobody's

        market.ledger.after["reserve"] = settle_meanwhile
        assert market.buy().state is PurchaseState.ACCEPTED
        settling[0].result()
    assert "cancelled" not in market.events(market.last)


def test_a_buy_order_is_served_in_portions_and_not_again_after_a_crash(market: Market) -> None:
    market.policy = policy(per_action=3)
    market.order(OverrideKind.BUY, 7)
    for asked in (3, 3, 1):
        evaluation = market.evaluate(10)
        assert (evaluation.decision.reason, evaluation.decision.add) == (Reason.ORDERED, asked)
        market.settled_down()
        assert market.last.order_id == 1
        market.process("daemon-1")  # the one before died right after the answer
        market.settle(minutes=11)
    assert market.evaluate(10).decision.reason is Reason.ENOUGH
    assert [order.count for order in market.sandbox.orders] == [3, 3, 1]


def test_a_stopping_daemon_waits_for_what_is_being_sent_and_cancels_what_waits(market: Market) -> None:
    answers = threading.Event()
    market.at_send = lambda: answers.wait(5)
    market.evaluate(13)
    until(lambda: market.last.state is PurchaseState.SENDING)
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(market.purchasing.close)
        until(lambda: market.purchasing._stopping.is_set())
        with pytest.raises(Stopping):
            market.purchasing.buy(bare(market))
        assert not closing.done()
        answers.set()
        closing.result()
    assert market.last.state is PurchaseState.ACCEPTED
    assert len(market.sandbox.orders) == 1


def bare(market: Market) -> Evaluation:
    """An evaluation that wants a purchase."""
    stored = market.ledger.evaluation(market.ledger.decisions()[0].id)
    assert isinstance(stored, Evaluation)
    return stored


def test_what_waits_for_a_free_sender_while_the_daemon_stops_is_not_sent(market: Market) -> None:
    answers = threading.Event()
    market.ledger.before["begin_sending"] = lambda: answers.wait(5)
    market.ledger.lease("daemon-1", [f"C{n}" for n in range(1, 6)], DAY)
    for n in range(1, 6):  # four senders, and one that waits
        name = f"C{n}"
        if n > 1:
            market.sandbox.add_cluster(name, workers=10)
            market.ledger.before["begin_sending"] = lambda: answers.wait(5)
        market.policy = policy(name=f"edge-{n}", cluster_id=name)
        market.evaluate(13)
        until(lambda n=n: market.ledger.calls.count("begin_sending") == min(n, 4))
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(market.purchasing.close)
        until(lambda: market.purchasing._stopping.is_set())
        answers.set()
        closing.result()
    assert [p.state.value for p in market.ledger.purchases()] == ["cancelled", *["accepted"] * 4]
    assert len(market.sandbox.orders) == 4


def test_an_answer_that_the_ledger_refuses_while_the_daemon_stops_is_tried_again(market: Market) -> None:
    market.ledger.fail("change", LOST, times=2)
    market.evaluate(13)
    until(lambda: market.ledger.calls.count("change") == 1)
    market.purchasing.close()
    assert market.last.state is PurchaseState.ACCEPTED


# --- settling ---


def test_a_task_that_cannot_be_read_holds_up_its_purchase_until_provision_timeout(market: Market) -> None:
    market.buy()
    market.sandbox.fail_always(Answer(403, "Forbidden.RAM", "no"), action="DescribeTaskInfo")
    assert market.settle(minutes=11).arrivals == ()
    assert market.settle(minutes=78).arrivals == ()
    assert (market.settle(minutes=1).state, market.last.arrived) == (PurchaseState.FULFILLED, 3)


def test_a_task_that_is_not_there_at_first_is_asked_for_again(market: Market) -> None:
    market.sandbox.doom_next(Fate(hidden_asks=2))
    market.buy()
    for _ in range(2):
        assert market.settle(minutes=1).state is PurchaseState.ACCEPTED
    assert market.settle(minutes=10).state is PurchaseState.FULFILLED


@pytest.mark.parametrize("form", ["memory", "sqlite"])
def test_workers_that_join_after_their_task_failed_are_attached_and_reported(
    form: str, clock: Clock, tmp_path: Path
) -> None:
    ledger = MemoryLedger(clock=clock) if form == "memory" else open_ledger(f"sqlite:///{tmp_path}/l.db", clock=clock)
    for market in markets(ledger, clock):
        market.sandbox.doom_next(Fate(joins_after=timedelta(hours=1), ends_after=timedelta(minutes=5), state="failed"))
        market.buy()
        failed = market.settle(minutes=6)
        assert (failed.state, failed.arrived, failed.failed) == (PurchaseState.FAILED, 0, 3)
        with capture_logs() as logs:
            late = market.settle(hours=1)
        assert (late.state, late.arrived, late.failed) == (PurchaseState.FAILED, 3, 0)
        assert ("purchase.failed", "error", 3) in [(e["event"], e["log_level"], e.get("arrived")) for e in logs]
    ledger.close()


def test_the_task_of_an_ended_purchase_is_asked_for_only_when_something_turns_up(market: Market) -> None:
    market.sandbox.doom_next(Fate(arrive=0, ends_after=timedelta(minutes=5)))
    market.buy()
    assert market.settle(minutes=6).state is PurchaseState.FAILED

    def asked() -> int:
        return sum("/tasks/" in request.path for request in market.sandbox.requests)

    before = asked()
    for _ in range(3):
        market.settle(minutes=1)
    assert asked() == before


def test_latecomers_come_after_the_open_purchase_and_a_failed_settlement_is_tried_again(market: Market) -> None:
    market.sandbox.doom_next(Fate(state="failed", ends_after=timedelta(minutes=1), joins_after=timedelta(minutes=30)))
    market.buy()
    market.settle(minutes=2)
    market.clock.advance(minutes=20)
    market.buy(14)
    market.clock.advance(minutes=11)
    market.ledger.fail("change", LOST)
    with capture_logs() as logs:
        market.settle()
    assert next(entry["event"] for entry in logs if entry["log_level"] == "error") == "settle.failed"
    older = market.ledger.purchase(1)
    assert older is not None
    assert older.arrived == 0
    assert market.settle(seconds=15).state is PurchaseState.FULFILLED
    market.settle(seconds=15)
    older = market.ledger.purchase(1)
    assert older is not None
    assert older.arrived == 3


def test_a_cluster_that_cannot_be_looked_at_moves_nothing(market: Market) -> None:
    market.buy()
    market.sandbox.fail_always(throttled(), action="DescribeClusterDetail")
    assert market.settle(hours=3).state is PurchaseState.ACCEPTED


def test_what_was_read_longer_ago_is_not_bought_for(market: Market) -> None:
    old = market.evaluate(13, now=market.clock() - timedelta(seconds=31))
    assert (old.decision.outcome, old.decision.reason) == (Outcome.HOLD, Reason.GAP)
    assert old.decision.sentence.startswith("hold: its readings were taken 31 s ago; otherwise: scale out by 3")
    assert market.ledger.purchases() == ()


def test_what_was_read_before_the_clock_was_set_back_is_not_bought_for(market: Market) -> None:
    ahead = market.evaluate(13, now=market.clock() + timedelta(hours=1))
    assert (ahead.decision.outcome, ahead.decision.reason) == (Outcome.HOLD, Reason.CLOCK)
    assert ahead.decision.sentence.startswith(
        "hold: the clock was set back by 3600 s since its readings were taken; otherwise: scale out by 3"
    )
    assert market.ledger.purchases() == ()


def test_what_stood_still_too_long_before_it_was_sent_needs_no_person(market: Market) -> None:
    """The machine is suspended for two hours between the claim and the request."""
    market.at_send = lambda: market.clock.advance(hours=2)
    purchase = market.buy()
    assert (purchase.state, purchase.code) == (PurchaseState.REJECTED, "InvalidTimeStamp.Expired")
    assert market.sandbox.orders == []
    assert market.evaluate(13).decision.reason is Reason.BACKOFF
    market.clock.advance(minutes=5)
    assert market.buy().state is PurchaseState.ACCEPTED


def test_a_mute_cloud_of_one_cluster_delays_no_other(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoscaler.purchasing.SETTLE_PATIENCE_SECONDS", 0.3)
    answers, looked = threading.Event(), []

    def inventory(cluster_id: str) -> Any:
        looked.append(cluster_id)
        if cluster_id == "C0":
            answers.wait(10)
        return whole_look(cluster_id)

    market.sandbox.add_cluster("C0", workers=10)
    market.ledger.lease("daemon-1", ["C0", CLUSTER_ID], DAY)
    market.process("daemon-1", "C0", CLUSTER_ID)
    for cluster_id in ("C0", CLUSTER_ID):
        market.policy = policy(name=f"edge-{cluster_id.lower()}", cluster_id=cluster_id)
        market.buy()
    whole_look = market.cloud.inventory
    market.cloud.inventory = inventory  # type: ignore[method-assign]
    assert market.settle(minutes=11).state is PurchaseState.FULFILLED
    market.settle(seconds=15)
    assert looked.count("C0") == 1, "one that hangs holds one thread"
    answers.set()
    until(lambda: market.ledger.purchase(1).state is PurchaseState.FULFILLED)  # type: ignore[union-attr]


def test_two_looks_after_provision_timeout_end_it(market: Market) -> None:
    market.sandbox.doom_next(Fate(arrive=1, ends_after=timedelta(days=1)))
    market.buy()
    assert market.settle(minutes=91).state is PurchaseState.ACCEPTED
    ended = market.settle(minutes=1)
    assert (ended.state, ended.arrived, ended.outstanding) == (PurchaseState.EXPIRED, 1, 2)


def test_an_unknown_purchase_is_told_of_again_when_a_daemon_begins(market: Market) -> None:
    market.sandbox.fail_next(Cut(sold=False))
    market.buy()
    with capture_logs() as logs:
        market.purchasing.remind()
    assert [(e["event"], e["log_level"], e["purchase"]) for e in logs] == [("purchase.unknown", "error", 1)]


def test_what_a_dry_run_buys_is_imagined_and_arrives_after_assumed_join(market: Market) -> None:
    market.policy = policy(dry_run=True)
    assert market.evaluate(13).decision.add == 3
    market.settled_down()
    assert (market.last.state, market.last.imagined) == (PurchaseState.ACCEPTED, True)
    assert market.settle(minutes=9).state is PurchaseState.ACCEPTED
    arrived = market.settle(minutes=1)
    assert (arrived.state, arrived.arrived) == (PurchaseState.FULFILLED, 3)
    market.clock.advance(minutes=5)
    assert market.evaluate(13).decision.reason is Reason.ENOUGH
    assert market.sandbox.orders == []
    assert all(request.method == "GET" for request in market.sandbox.requests)


def test_a_dry_runs_purchase_that_a_crash_left_half_sent_is_no_riddle(market: Market) -> None:
    market.policy = policy(dry_run=True)
    market.ledger.fail("change", LOST, times=9)
    market.evaluate(13)
    until(lambda: market.ledger.calls.count("change") == 1)
    assert market.last.state is PurchaseState.SENDING
    market.open.clear()  # killed
    market.ledger.heal()
    market.process("daemon-1")
    assert market.settle(seconds=15).state is PurchaseState.ACCEPTED
    assert market.settle(minutes=11).state is PurchaseState.FULFILLED


def test_no_log_line_holds_the_password(market: Market) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    market.at_send = fail
    with capture_logs() as logs:
        market.buy()
    assert "Sandbox-0nly!" not in repr(logs)
    assert "Sandbox-0nly!" not in repr(replace(market.last))
