"""Purchases against a model of the cloud that knows the truth: what was carried out, what still may be, whose is whose.

The ledger and the settling are real. The cloud carries requests out at once, late or never, whole or in part, answers
or does not, and shows its tasks and workers by lists that lag and go back and forth; a colleague buys by the console;
a person settles by what the console shows at that moment. Whatever comes in whatever order, the ledger never says less
than may be true.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import MemoryLedger
from autoscaler.model import (
    Accepted,
    Answer,
    Gap,
    GapReason,
    Inventory,
    Node,
    Purchase,
    PurchaseState,
    RefusalClass,
    Refused,
    Task,
    TaskState,
    Unclear,
)
from autoscaler.purchase import (
    NOTHING_BOUGHT,
    OPEN,
    SIGNATURE_LIFETIME,
    UNRESOLVED,
    TooEarly,
    abandoned,
    answered,
    quiet_at,
    settled_bought,
    settled_not_bought,
    terms,
)
from autoscaler.settling import Settling
from tests.build import CLUSTER_ID, capacity, cluster, facts, policy, purchase
from tests.fakes import Clock, Observed, node

MINUTE = timedelta(minutes=1)
HOLDER = "daemon-1"
TIMEOUT_MINS = 20
S = PurchaseState
KNOWN = facts(capacity=capacity())
NOTHING = Evaluation(KNOWN, decide(KNOWN))


@dataclass
class Sale:
    """What the cloud does about one request, ours or a colleague's; ``at`` may still lie ahead."""

    at: datetime
    workers: list[str]
    joins_after: timedelta
    listed: bool  # whether its task is in the cluster's list
    gives_up: bool  # its task fails when its time is over, whatever joins later

    @property
    def task_id(self) -> str:
        return f"T-{self.workers[0].rpartition('-')[0]}"

    def task(self, now: datetime) -> Task:
        over = now >= self.at + max(self.joins_after, TIMEOUT_MINS * MINUTE)
        names = tuple(self.workers) if now >= self.at + MINUTE else ()
        if not over:
            return Task(self.task_id, TaskState.RUNNING, self.at, pending=names)
        if self.gives_up:
            return Task(self.task_id, TaskState.FAILED, self.at, failed=names, error="NoStock")
        return Task(self.task_id, TaskState.SUCCESS, self.at, succeeded=names)

    def nodes(self, now: datetime) -> list[Node]:
        if now < self.at + MINUTE:
            return []
        ready = now >= self.at + self.joins_after
        return [node(name, ready=ready, created_at=self.at + MINUTE) for name in self.workers]


@dataclass
class ModelCloud:
    """The truth, and the lists by which it is seen."""

    clock: Clock
    sales: dict[str, Sale] = field(default_factory=dict)  # by nonce, or by the colleague's name
    lag: timedelta = timedelta(0)
    mute: bool = False  # asked for one task

    def sold(self, nonce: str) -> bool:
        return nonce in self.sales and self.sales[nonce].at <= self.clock()

    def inventory(self, cluster_id: str) -> Inventory:
        seen_at = self.clock() - self.lag
        seen = [sale for sale in self.sales.values() if sale.at <= seen_at]
        nodes = [node for sale in seen for node in sale.nodes(seen_at)]
        # The list names no workers; only the task itself does.
        tasks = [replace(sale.task(seen_at), succeeded=(), failed=(), pending=()) for sale in seen if sale.listed]
        return Inventory(cluster_id, self.clock(), cluster(), tuple(nodes), tuple(tasks))

    def task(self, task_id: str) -> Task | Gap | None:
        if self.mute:
            return Gap(GapReason.SERVER_ERROR, "Throttling")
        now = self.clock()
        found = [sale.task(now) for sale in self.sales.values() if sale.task_id == task_id and sale.at <= now]
        return found[0] if found else None


FATES = st.fixed_dictionaries(
    {
        "after": st.sampled_from([0, 0, 0, 1, 4, 8, 14]),  # minutes until it is carried out
        "joins_after": st.integers(2, 70),
        "listed": st.booleans(),
        "gives_up": st.booleans(),
    }
)


class Purchases(RuleBasedStateMachine):
    """One cluster and what is bought there, one purchase after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ledger = MemoryLedger(clock=self.clock)
        self.cloud = ModelCloud(self.clock)
        self.settling = Settling(ledger=self.ledger, cloud=self.cloud, observer=Observed(), clock=self.clock)
        self.answers: dict[int, Answer] = {}  # on their way to us
        self.colleagues = 0
        self.policy = policy()

    @initialize(alone=st.booleans())
    def begins(self, alone: bool) -> None:
        settle = {"settle_unknown": "after_quiet_period"} if alone else {}
        self.policy = policy(timeout_mins=TIMEOUT_MINS, provision_timeout=timedelta(minutes=40), **settle)
        self.ledger.record_look(self.cloud.inventory(CLUSTER_ID))

    def all(self) -> tuple[Purchase, ...]:
        return self.ledger.purchases(limit=None)

    def unknown(self) -> list[Purchase]:
        return [one for one in self.all() if one.state is S.UNKNOWN]

    # --- what we do ---

    @precondition(lambda self: not any(one.state in UNRESOLVED for one in self.all()))
    @rule(asked=st.integers(1, 3), fate=st.none() | FATES, hears=st.sampled_from(["answer", "late", "unclear", "dies"]))
    def we_buy(self, asked: int, fate: dict[str, Any] | None, hears: str) -> None:
        now, number = self.clock(), len(self.all()) + 1
        nonce = f"nonce-{number}"
        made = purchase(
            0, "intended", asked, now, of=self.policy, nonce=nonce, terms=terms(self.policy),
            tasks_before=tuple(sale.task_id for sale in self.cloud.sales.values()),
        )  # fmt: skip
        self.ledger.lease(HOLDER, [CLUSTER_ID], timedelta(days=9))
        _, row = self.ledger.reserve(self.policy, now, HOLDER, lambda *_: (NOTHING, made))
        assert row is not None
        assert self.ledger.begin_sending(row, HOLDER, now) is None
        answer: Answer = Refused(RefusalClass.LATER, "NoStock", "none left")
        if fate is not None:
            at = now + fate["after"] * MINUTE
            assert at < now + SIGNATURE_LIFETIME
            workers = [f"ours{number}-{n}" for n in range(asked)]
            sale = Sale(at, workers, fate["joins_after"] * MINUTE, fate["listed"], fate["gives_up"])
            self.cloud.sales[nonce] = sale
            answer = Accepted(sale.task_id)
        if hears == "answer" and (fate is None or not fate["after"]):
            self.change(row.id, partial(answered, answer=answer, now=now))
            return
        if hears == "late":
            self.answers[row.id] = answer
        change = partial(abandoned, now=now) if hears == "dies" else partial(answered, answer=Unclear("?"), now=now)
        self.change(row.id, change)

    def change(self, id: int, change: Any) -> Purchase:
        return self.ledger.change(id, change, self.clock(), "the test")

    @precondition(lambda self: self.answers)
    @rule()
    def an_answer_comes_late(self) -> None:
        id, answer = self.answers.popitem()
        self.change(id, partial(answered, answer=answer, now=self.clock()))

    @rule(lag=st.sampled_from([0, 0, 1, 3, 9]), mute=st.sampled_from([False, False, True]))
    def we_look(self, lag: int, mute: bool = False) -> None:
        self.cloud.lag, self.cloud.mute = lag * MINUTE, mute
        rows = self.ledger.unsettled()
        self.settling.settle(CLUSTER_ID, rows, self.clock())

    # --- what others do ---

    @rule(minutes=st.sampled_from([1, 1, 3, 5, 10, 20, 40]))
    def time_passes(self, minutes: int) -> None:
        self.clock.advance(minutes=minutes)

    @rule(workers=st.integers(1, 3), listed=st.booleans(), joins_after=st.integers(2, 30))
    def a_colleague_buys(self, workers: int, listed: bool, joins_after: int) -> None:
        self.colleagues += 1
        name = f"theirs{self.colleagues}"
        made = [f"{name}-{n}" for n in range(workers)]
        self.cloud.sales[name] = Sale(self.clock(), made, joins_after * MINUTE, listed, gives_up=False)

    @precondition(lambda self: self.unknown())
    @rule()
    def a_person_looks_and_settles(self) -> None:
        (row,) = self.unknown()
        if self.cloud.sold(row.nonce):
            self.change(row.id, partial(settled_bought, bought=row.asked, now=self.clock()))
            return
        with suppress(TooEarly):
            self.change(row.id, partial(settled_not_bought, now=self.clock()))
            assert self.clock() >= quiet_at(row)

    # --- what may never be ---

    @invariant()
    def what_may_be_bought_is_never_said_not_to_be(self) -> None:
        for row in self.all():
            sale = self.cloud.sales.get(row.nonce)
            # Left to itself a policy takes absence for proof; that is its own wish, and only of what shows nowhere.
            hidden = row.terms.settle_unknown == "after_quiet_period" and sale is not None and not sale.listed
            assert sale is None or hidden or row.state not in NOTHING_BOUGHT, f"{row.state}, and it was carried out"

    @invariant()
    def nothing_is_lost_count_of(self) -> None:
        for row in self.all():
            assert row.arrived + row.failed <= row.asked
            assert row.outstanding >= 0

    @invariant()
    def a_worker_is_of_one_purchase(self) -> None:
        taken = [arrival.instance_id for row in self.all() for arrival in row.arrivals]
        assert len(taken) == len(set(taken))

    @invariant()
    def what_the_cloud_answered_for_has_its_own_workers(self) -> None:
        """Its task names them; before it does, none of another purchase of ours is taken for one of them."""
        for row in self.all():
            if row.adopted or row.task_id is None or row.state in NOTHING_BOUGHT:
                continue
            sale = self.cloud.sales[row.nonce]
            ours = {arrival.instance_id for arrival in row.arrivals if arrival.instance_id.startswith("ours")}
            assert ours <= set(sale.workers)

    @invariant()
    def a_foreigners_workers_never_make_fewer_of_ours_count(self) -> None:
        """What is adopted by workers alone has as many of them as were asked for."""
        for row in self.all():
            if row.adopted and row.task_id is None and row.message == "found by its workers":
                assert row.arrived == row.asked

    @invariant()
    def without_a_colleague_every_worker_is_its_own(self) -> None:
        if self.colleagues:
            return
        for row in self.all():
            sale = self.cloud.sales.get(row.nonce)
            assert {arrival.instance_id for arrival in row.arrivals} <= set(sale.workers if sale else ())

    def teardown(self) -> None:
        """Left alone for a day, with lists that are right, whatever evidence can settle is settled."""
        self.cloud.lag = timedelta(0)
        for _ in range(30):
            self.clock.advance(minutes=10)
            self.we_look(0)
        for row in self.all():
            assert row.state not in OPEN or row.state is S.UNKNOWN, f"{row.state} for ever"
            sale = self.cloud.sales.get(row.nonce)
            if row.state is S.UNKNOWN and sale is not None and not self.colleagues:
                assert len(self.all()) > 1 or not (sale.listed and sale.at < row.reserved_at + 5 * MINUTE)
        self.what_may_be_bought_is_never_said_not_to_be()
        self.nothing_is_lost_count_of()


TestPurchases = Purchases.TestCase
TestPurchases.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
