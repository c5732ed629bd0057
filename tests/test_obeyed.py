"""Orders obeyed: each sentence that README says of them, over the rules and over the real road to money."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from autoscaler.decision import decide
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerUnavailable, MemoryLedger
from autoscaler.model import Override, OverrideKind, PurchaseState
from autoscaler.orders import Orders
from autoscaler.override import Asked
from autoscaler.sandbox import Cut, SandboxCloud
from tests.build import CLUSTER_ID, at, capacity, facts, history, order, policy, purchase, workers
from tests.fakes import Clock
from tests.test_purchasing import JOIN, Market, markets


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture
def market() -> Iterator[Market]:
    clock = Clock()
    yield from markets(MemoryLedger(clock=clock), clock)


# the strictest holds


@pytest.mark.parametrize(
    ("orders", "load", "comes_to"),
    [
        pytest.param([order("freeze"), order("floor", 15, 2)], 0, "freeze 0", id="a freeze over a floor"),
        pytest.param([order("buy", 5), order("freeze", id=2)], 0, "freeze 0", id="a freeze over an order to buy"),
        pytest.param(
            [order("freeze", ends_at=at(hours=2)), order("freeze", id=2, ends_at=at(minutes=5))], 6000, "freeze 0",
            id="any freeze",
        ),
        pytest.param([order("cap", 14), order("cap", 12, 2)], 6000, "needed 2", id="the lowest cap, the later"),
        pytest.param([order("cap", 12), order("cap", 14, 2)], 6000, "needed 2", id="the lowest cap, the earlier"),
        pytest.param([order("floor", 13), order("floor", 11, 2)], 0, "needed 3", id="the highest floor, the earlier"),
        pytest.param([order("floor", 11), order("floor", 13, 2)], 0, "needed 3", id="the highest floor, the later"),
        pytest.param([order("cap", 12), order("floor", 15, 2)], 0, "needed 2", id="a cap over a floor"),
        pytest.param([order("cap", 10), order("floor", 15, 2)], 0, "cap 0", id="a cap that leaves a floor nothing"),
        pytest.param([order("cap", 12), order("buy", 5, 2)], 0, "ordered 2", id="a cap over an order to buy"),
        pytest.param([order("floor", 12)], 6000, "needed 5", id="a load above a floor"),
        pytest.param([order("buy", 2), order("floor", 15, 2)], 0, "ordered 2", id="an order to buy before a floor"),
        pytest.param([order("buy", 2), order("buy", 4, 2)], 0, "ordered 2", id="orders to buy one after another"),
    ],
)  # fmt: skip
def test_the_strictest_holds(orders: list[Override], load: int, comes_to: str) -> None:
    decision = decide(facts(load=load, capacity=capacity(workers(10)), overrides=tuple(orders)))
    assert f"{decision.reason} {decision.add}" == comes_to


def test_an_order_to_buy_for_several_policies_is_so_many_for_each() -> None:
    buy, other = order("buy", 3, policies=("edge", "other")), policy(name="other", cluster_id="C2")
    bought = purchase(1, "fulfilled", 3, order_id=1)
    here = decide(facts(load=0, capacity=capacity(workers(10)), overrides=(buy,), history=history(bought)))
    there = decide(facts(other, load=0, capacity=capacity(workers(10)), overrides=(buy,)))
    assert (here.reason, there.reason, there.add) == (Reason.ENOUGH, Reason.ORDERED, 3)


# one order, each worker once


def ordered(market: Market) -> list[tuple[int | None, int]]:
    """The orders that purchases served, and how many workers each asked for, oldest first."""
    return [(bought.order_id, bought.asked) for bought in reversed(market.ledger.purchases(limit=None))]


def test_orders_to_buy_are_served_one_after_another_each_by_purchases_of_its_own(market: Market) -> None:
    market.policy = policy(per_action=2)
    for number in (3, 2):
        market.order(OverrideKind.BUY, number)
    for _ in range(3):
        market.buy(10)
        market.settle(minutes=11)
    assert ordered(market) == [(1, 2), (1, 1), (2, 2)]
    assert market.evaluate(10).decision.reason is Reason.ENOUGH


def test_an_order_ends_at_its_end(market: Market) -> None:
    market.order(OverrideKind.BUY, 3)
    market.clock.advance(days=1)
    assert market.evaluate(10).decision.reason is Reason.ENOUGH


def test_an_order_whose_answer_was_lost_is_not_repeated(market: Market) -> None:
    market.order(OverrideKind.BUY, 3)
    market.sandbox.fail_next(Cut(sold=True))
    assert market.buy(10).state is PurchaseState.UNKNOWN
    for _ in range(3):
        market.process("daemon-1")  # which knows nothing but the ledger
        market.clock.advance(minutes=1)
        assert market.evaluate(10).decision.reason is Reason.ENOUGH  # what may have been bought is done
    market.settle(minutes=15)
    market.settle(minutes=15)
    assert market.evaluate(10).decision.reason is Reason.ENOUGH
    assert ordered(market) == [(1, 3)]


def test_an_order_that_was_surely_not_sent_is_served_later_and_once(market: Market) -> None:
    market.order(OverrideKind.BUY, 3)
    market.ledger.fail("begin_sending", LedgerUnavailable("no disk", "free some"))
    market.evaluate(10)
    market.settled_down()
    market.process("daemon-1")
    market.clock.advance(minutes=1)
    market.buy(10)
    market.settle(minutes=11)
    assert market.evaluate(10).decision.reason is Reason.ENOUGH
    assert [sold.count for sold in market.sandbox.orders] == [3]


def test_an_order_of_which_some_did_not_come_buys_them_again(market: Market) -> None:
    market.order(OverrideKind.BUY, 3)
    market.buy(10)
    (sold,) = market.sandbox.orders
    market.ledger.change(
        1, lambda bought: type(bought)(**{name: getattr(bought, name) for name in bought.__slots__} | {"failed": 2}),
        market.clock(), "the task says so",
    )  # fmt: skip
    assert sold.count == 3
    market.clock.advance(minutes=11)
    assert market.evaluate(10).decision.add == 2
    market.settled_down()


def test_an_order_waits_for_an_unknown_purchase_and_is_served_once_that_is_settled(market: Market) -> None:
    market.sandbox.fail_next(Cut(sold=False))
    assert market.buy(13).state is PurchaseState.UNKNOWN
    orders = Orders(ledger=market.ledger, policies=lambda: (market.policy,), clock=market.clock)
    placed = orders.place(Asked(OverrideKind.BUY, ("edge",), 2, "ana", "derby", timedelta(hours=4)))
    (note,) = placed.notes
    assert note.startswith("edge waits: the outcome of purchase 1 (3 workers) is unknown")
    assert market.evaluate(10).decision.reason is Reason.PURCHASE_UNKNOWN
    market.clock.advance(hours=2)
    orders.settle(1, None, "ana", "no order in the billing centre")
    assert market.buy(10).order_id == placed.override.id


# a freeze


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=2)], ids=["by the same clock", "by one ahead"])
@pytest.mark.parametrize("moment", ["reserve", "begin_sending"])
def test_a_freeze_that_was_recorded_before_is_obeyed_whatever_the_clocks_say(
    market: Market, moment: str, ahead: timedelta
) -> None:
    def freeze() -> None:
        now = market.clock() + ahead
        market.ledger.add_override(OverrideKind.FREEZE, ("*",), None, "ana", "stop", now, now + timedelta(hours=1))

    market.ledger.before[moment] = freeze
    market.evaluate(13)
    market.settled_down()
    assert market.sandbox.orders == []


def test_a_freeze_after_the_send_is_answered_with_what_was_sent() -> None:
    clock = Clock()
    with SandboxCloud(clock=clock, join_delay=JOIN) as sandbox:
        sandbox.add_cluster(CLUSTER_ID, workers=10)
        market = Market(MemoryLedger(clock=clock), clock, sandbox)
        said: list[str] = []
        orders = Orders(ledger=market.ledger, policies=lambda: (market.policy,), clock=clock)
        asked = Asked(OverrideKind.FREEZE, ("*",), None, "ana", "stop", timedelta(hours=1))
        market.at_send = lambda: said.extend(orders.place(asked).notes)
        market.buy(13)
        market.purchasing.close()
        assert said == ["purchase 1 of 3 for edge was already sent, 0 arrived"]
        assert len(sandbox.orders) == 1
