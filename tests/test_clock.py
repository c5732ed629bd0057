"""When time lies: our clock, the cloud's or both are set while workers are on their way, more are wanted, people order.

The real parts over a local edge cloud, step by step through hours of a world whose own time never jumps. Ours is what
the daemon takes it for. Whatever happens to it: nothing is bought twice and nothing is given up by a clock that is
off, every decision says so meanwhile, and what is wanted is bought within a bounded time once it is right again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autoscaler.decision import Decision
from autoscaler.facts import Reason
from autoscaler.leases import LEASE
from autoscaler.ledger import MemoryLedger, open_ledger
from autoscaler.model import Gap, GapReason, OverrideKind, Purchase, PurchaseState
from autoscaler.sandbox import Cut, SandboxCloud
from tests.build import CLUSTER_ID, NOW, policy
from tests.fakes import Clock
from tests.test_purchasing import Market

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
STEP = 2 * MINUTE
JOIN = 20 * MINUTE
COOLDOWN = 10 * MINUTE
# The window of three steps, a cooldown, and the step in which it is noticed.
SOON = 3 * STEP + COOLDOWN + STEP


@dataclass
class World:
    """Hours of a world; ``now`` is its own time, and the sandbox's but for ``cloud_off``."""

    market: Market
    now: datetime = NOW
    off: timedelta = timedelta(0)  # our clock ahead of the world's
    cloud_off: timedelta = timedelta(0)
    wanted: int = 10
    decisions: list[tuple[datetime, Decision]] = field(default_factory=list)
    bought_at: list[tuple[datetime, int]] = field(default_factory=list)

    def set_clocks(self) -> None:
        self.market.clock.now = self.now + self.off
        self.market.sandbox.skew = self.cloud_off - self.off

    def ours(self, ahead: timedelta) -> None:
        """Our clock is set."""
        self.off = ahead
        self.set_clocks()

    def theirs(self, ahead: timedelta) -> None:
        """The cloud's clock is set."""
        self.cloud_off = ahead
        self.set_clocks()

    def passes(self, span: timedelta) -> None:
        """Time passes, in which our machine stands still."""
        self.now += span
        self.set_clocks()

    def goes_on(self, span: timedelta) -> list[Decision]:
        """Steps of the daemon's jobs; what was decided."""
        market, begun = self.market, len(self.decisions)
        end = self.now + span
        while self.now < end:
            self.passes(STEP)
            market.ledger.lease("daemon-1", [CLUSTER_ID], LEASE)
            market.purchasing.settle_all(market.clock())
            sold = len(market.sandbox.orders)
            (evaluation,) = market.round(self.wanted)
            market.settled_down()
            self.decisions.append((self.now, evaluation.decision))
            self.bought_at += [(self.now, order.count) for order in market.sandbox.orders[sold:]]
        return [decision for _, decision in self.decisions[begun:]]

    def goes_on_blind(self, span: timedelta) -> None:
        """The same while our clock and the cloud's disagree: nothing at all may come of it."""
        before = self.purchases(), len(self.market.sandbox.orders)
        reasons = {decision.reason for decision in self.goes_on(span)}
        assert reasons == {Reason.CLOCK}
        assert (self.purchases(), len(self.market.sandbox.orders)) == before

    def purchases(self) -> tuple[Purchase, ...]:
        found: tuple[Purchase, ...] = self.market.ledger.purchases(limit=None)
        return found

    @property
    def sold(self) -> int:
        return sum(count for _, count in self.bought_at)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def world() -> Iterator[World]:
    clock = Clock()
    with SandboxCloud(clock=clock, join_delay=JOIN) as sandbox:
        sandbox.add_cluster(CLUSTER_ID, workers=10)
        market = Market(MemoryLedger(clock=clock), clock, sandbox)
        market.policy = policy(evaluate_every=STEP, stabilization_window=3 * STEP, cooldown=COOLDOWN)
        yield World(market)
        market.purchasing.close()
        market.audit()


def three_on_their_way(world: World) -> None:
    """A calm quarter of an hour, and then load for three workers more, which are bought and joining."""
    world.goes_on(14 * MINUTE)
    world.wanted = 13
    world.goes_on(4 * STEP)
    assert [count for _, count in world.bought_at] == [3]


def an_hour_ahead(world: World) -> None:
    world.ours(HOUR)
    world.goes_on_blind(20 * MINUTE)


def an_hour_behind(world: World) -> None:
    world.ours(-HOUR)
    world.goes_on_blind(20 * MINUTE)


def two_hours_ahead(world: World) -> None:  # case 26
    world.ours(2 * HOUR)
    world.goes_on_blind(10 * MINUTE)


def ahead_then_behind(world: World) -> None:
    for off in (HOUR, -HOUR, 5 * HOUR):
        world.ours(off)
        world.goes_on_blind(3 * STEP)


def the_clouds_is_off(world: World) -> None:
    world.theirs(20 * MINUTE)
    world.goes_on_blind(20 * MINUTE)
    world.theirs(-20 * MINUTE)
    world.goes_on_blind(20 * MINUTE)


def suspended(world: World) -> None:
    world.passes(2 * HOUR)


LIES: dict[str, Callable[[World], None]] = {
    "an hour ahead for 20 minutes": an_hour_ahead,
    "an hour behind for 20 minutes": an_hour_behind,
    "two hours ahead, with workers on their way": two_hours_ahead,
    "ahead, then behind, then far ahead": ahead_then_behind,
    "the cloud's 20 minutes off, either way": the_clouds_is_off,
    "the machine is suspended for two hours": suspended,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_clock_that_lies_holds_and_then_all_goes_on(world: World, lie: Callable[[World], None]) -> None:
    three_on_their_way(world)
    world.wanted = 16
    lie(world)
    world.ours(timedelta(0))
    world.theirs(timedelta(0))
    right_at = world.now
    world.goes_on(SOON + JOIN + 2 * STEP)
    assert world.sold == 6, "what was wanted is bought once"
    assert all(at <= right_at + SOON for at, _ in world.bought_at)
    assert {purchase.state for purchase in world.purchases()} == {PurchaseState.FULFILLED}
    assert world.decisions[-1][1].reason is Reason.ENOUGH


@pytest.mark.parametrize("lie", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_targets_and_people_wait_for_the_clock_too(world: World, lie: timedelta) -> None:
    world.goes_on(10 * MINUTE)
    world.ours(lie)
    now = world.market.clock()
    world.market.ledger.add_override(OverrideKind.BUY, ("*",), 2, "ana", "derby", now - 9 * HOUR, now + 9 * HOUR)
    world.market.ledger.add_override(OverrideKind.FLOOR, ("*",), 12, "ana", "derby", now - 9 * HOUR, now + 9 * HOUR)
    world.goes_on_blind(20 * MINUTE)
    world.ours(timedelta(0))
    world.goes_on(HOUR)
    assert world.sold == 2  # the order's, which bring the floor with them


def test_an_unknown_purchase_is_not_settled_by_a_clock_that_lies(world: World) -> None:
    world.market.policy = policy(
        evaluate_every=STEP, cooldown=COOLDOWN, settle_unknown="after_quiet_period", timeout_mins=10
    )
    world.market.sandbox.fail_next(Cut(sold=False))
    world.wanted = 13
    world.goes_on(STEP)
    world.ours(2 * HOUR)  # long after the quiet period, by this clock
    world.goes_on_blind(10 * MINUTE)
    assert [purchase.state for purchase in world.purchases()] == [PurchaseState.UNKNOWN]
    world.ours(timedelta(0))
    world.wanted = 14
    assert {decision.reason for decision in world.goes_on(16 * MINUTE)} == {Reason.PURCHASE_UNKNOWN}
    world.goes_on(40 * MINUTE)
    assert [purchase.state for purchase in world.purchases()] == [PurchaseState.FULFILLED, PurchaseState.NOT_BOUGHT]
    assert world.sold == 4


def test_all_clocks_were_an_hour_ahead_and_nobody_could_tell(world: World) -> None:
    """What was recorded meanwhile gives way; a purchase holds for its cooldown beyond the time it was sent at.

    The sandbox's world goes back with its clock here: its cluster is scaling once more.
    """
    world.ours(HOUR)
    world.theirs(HOUR)
    three_on_their_way(world)
    world.goes_on(40 * MINUTE)
    world.ours(timedelta(0))
    world.theirs(timedelta(0))
    world.goes_on(10 * MINUTE)
    assert world.market.ledger.latest()["edge"].at == world.now
    assert world.decisions[-1][1].reason is Reason.ENOUGH
    sent_at = world.purchases()[0].sent_at
    assert sent_at is not None
    world.wanted = 16
    waits = world.goes_on(sent_at + COOLDOWN - world.now - STEP)
    assert {decision.reason for decision in waits[3:]} <= {Reason.CLUSTER_BUSY, Reason.COOLDOWN}
    said = {verdict.rule: verdict.says for verdict in waits[0].verdicts}
    assert said["cooldown"].endswith("by a clock that was ahead")
    world.goes_on(HOUR)
    assert world.sold == 6
    assert {purchase.state for purchase in world.purchases()} == {PurchaseState.FULFILLED}


def test_a_prometheus_that_is_off_holds_all_the_same(world: World) -> None:
    three_on_their_way(world)
    market = world.market
    market.reader.read = lambda questions, at: [  # type: ignore[method-assign]
        Gap(GapReason.CLOCK, "its clock is 1h ahead of ours") for _ in questions
    ]
    now = market.clock()
    market.ledger.add_override(OverrideKind.BUY, ("*",), 2, "ana", "derby", now, now + 9 * HOUR)
    sold = world.sold
    assert {decision.reason for decision in world.goes_on(30 * MINUTE)} == {Reason.CLOCK}
    assert world.sold == sold


def test_two_replicas_whose_clocks_are_40_s_apart_take_turns(tmp_path: Path) -> None:
    """Each is within 30 s of the cloud's; the cluster goes from one to the other and back while load rises."""
    truth = Clock()
    ahead, behind = Clock(), Clock()
    url = f"sqlite:///{tmp_path}/ledger.db"
    with SandboxCloud(clock=truth, join_delay=JOIN) as sandbox:
        sandbox.add_cluster(CLUSTER_ID, workers=10)
        replicas = [Market(open_ledger(url, clock=clock), clock, sandbox) for clock in (ahead, behind)]
        reasons = set()
        for step in range(60):
            truth.advance(minutes=1)
            ahead.now, behind.now = truth.now + timedelta(seconds=20), truth.now - timedelta(seconds=20)
            mine, other = replicas if step % 14 < 7 else replicas[::-1]
            mine.policy = policy(evaluate_every=MINUTE, stabilization_window=3 * MINUTE, cooldown=COOLDOWN)
            other.ledger.release("daemon-1")
            mine.process("daemon-1")
            mine.purchasing.settle_all(mine.clock())
            evaluation = mine.evaluate(10 + 2 * (step // 20))
            mine.settled_down()
            reasons.add(evaluation.decision.reason)
            assert mine.ledger.latest()["edge"].at == mine.clock()
        assert sum(order.count for order in sandbox.orders) == 4
        assert reasons <= {Reason.NEEDED, Reason.ENOUGH, Reason.STABILIZATION, Reason.CLUSTER_BUSY, Reason.COOLDOWN}
        for replica in replicas:
            for purchasing in replica.open:
                purchasing.close()
            replica.audit()
            replica.ledger.close()
