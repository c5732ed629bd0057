"""Orders of people: what they would do, that they are recorded once, and what is answered."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest

from autoscaler.ledger import MarkName, NotFound
from autoscaler.model import Capacity, OverrideKind, PurchaseState, Restoral, Stranger
from autoscaler.orders import Orders, progress
from autoscaler.override import Asked, KeyReused, OrderRefused
from autoscaler.policy import Budget
from autoscaler.purchase import CannotSettle, TooEarly
from tests.build import NOW, at, budget, capacity, cluster, gap, history, policy, purchase, workers
from tests.counter import EDGE, OTHER, Counter

HOUR = timedelta(hours=1)


class Desk(Counter):
    """Orders, and what would hold one back."""

    def waits(self, order: Asked, of: str = "edge") -> tuple[str, ...]:
        return next(effect.waits for effect in self.orders.preview(order).effects if effect.policy == of)


def asked(kind: str, workers: int | None = None, *policies: str, **fields: Any) -> Asked:
    plain = {"author": "ana", "reason": "derby", "lasts": HOUR}
    return Asked(OverrideKind(kind), policies or ("edge",), workers, **(plain | fields))


# what it would do


def test_a_buy_is_shown_with_its_workers_and_money() -> None:
    preview = Desk().orders.preview(asked("buy", 5, "*"))
    assert [(effect.policy, effect.workers, effect.money, effect.says) for effect in preview.effects] == [
        ("edge", 5, Fraction(900), "buys 5, in portions of 2"),
        ("other", 5, None, "buys 5 (dry run: only imagined)"),
    ]
    assert (preview.workers, preview.imagined, preview.money) == (5, 5, (("CNY", Fraction(900)),))
    assert preview.override.policies == ("edge", "other")


@pytest.mark.parametrize(
    ("order", "says", "workers"),
    [
        pytest.param(asked("floor", 13), "wants 13, 10 in supply: buys 3", 3, id="a floor buys what is missing"),
        pytest.param(asked("floor", 9), "wants 9, 10 in supply: buys 0", 0, id="a floor that is met buys nothing"),
        pytest.param(asked("cap", 12), "has at most 12 paid, 10 are now", 0, id="a cap"),
        pytest.param(asked("freeze"), "buys nothing", 0, id="a freeze"),
    ],
)
def test_what_the_other_orders_would_do(order: Asked, says: str, workers: int) -> None:
    (effect,) = Desk().orders.preview(order).effects
    assert (effect.says, effect.workers) == (says, workers)


def test_a_freeze_says_what_it_stops() -> None:
    desk = Desk()
    desk.evaluate(EDGE, now=at(minutes=1), capacity=capacity(workers(9)))
    (effect,) = desk.orders.preview(asked("freeze")).effects
    assert effect.says == "buys nothing; it was about to buy 1"


def ordered(desk: Desk, kind: str, number: int | None = None) -> None:
    desk.ledger.add_override(OverrideKind(kind), ["edge"], number, "bo", "money", NOW, at(hours=2))


def begun(desk: Desk, found: Capacity) -> None:
    desk.memory.mark(MarkName.BEGUN, NOW, "--init")
    desk.evaluate(EDGE, now=at(minutes=1), capacity=found, history=history(restoral=Restoral(NOW, begun=True)))
    desk.now = at(minutes=1)


WAITS = [
    pytest.param(lambda desk: None, (), id="nothing is in its way"),
    pytest.param(
        lambda desk: desk.keep(purchase(41, "unknown", of=EDGE)),
        ("the outcome of purchase 41 (3 workers) is unknown, see `autoscaler purchases show 41`",),
        id="a purchase of unknown outcome",
    ),
    pytest.param(
        lambda desk: desk.keep(purchase(41, "sending", of=EDGE)), ("purchase 41 is being sent",), id="one being sent"
    ),
    pytest.param(lambda desk: ordered(desk, "freeze"), ('frozen by bo until 14:00:00Z ("money")',), id="a freeze"),
    pytest.param(
        lambda desk: ordered(desk, "cap", 11),
        ('only 1 of 3 now, because cap 11 by bo until 14:00:00Z ("money") leaves 1, 10 are paid',),
        id="a cap that leaves some",
    ),
    pytest.param(
        lambda desk: ordered(desk, "cap", 4),
        ('cap 4 by bo until 14:00:00Z ("money") leaves 0, 10 are paid',),
        id="a cap that leaves none",
    ),
    pytest.param(
        lambda desk: ordered(desk, "buy", 2), ("order 1 comes first and lacks 2 of 2",), id="an older order to buy"
    ),
    pytest.param(
        lambda desk: desk.evaluate(EDGE, now=at(minutes=1), capacity=gap()),
        ("the workers cannot be counted (timeout: no answer within 5s)",),
        id="a gap of capacity",
    ),
    pytest.param(
        lambda desk: desk.evaluate(EDGE, now=at(minutes=1), capacity=capacity(workers(10), cluster=cluster("scaling"))),
        ("the cluster is scaling",),
        id="a busy cluster",
    ),
    pytest.param(
        lambda desk: desk.evaluate(
            EDGE, now=at(minutes=1), capacity=capacity(workers(10), cluster=cluster(size=20, node_quota=90))
        ),
        (),
        id="a quota that is far",
    ),
    pytest.param(
        lambda desk: begun(desk, capacity(workers(10))), (), id="a ledger begun anew whose cluster was looked at since"
    ),
    pytest.param(
        lambda desk: begun(desk, capacity(workers(10), strangers=(Stranger("task T-1", NOW),))),
        (
            "the ledger was begun at 2026-06-01 12:00:00Z and may lack a purchase until 2026-06-01 13:20:00Z or "
            "`autoscaler ledger reviewed`, it does not know task T-1",
        ),
        id="a ledger begun anew that does not know a task",
    ),
]


@pytest.mark.parametrize(("before", "waits"), WAITS)
def test_what_would_hold_a_buy_back_is_said_before_and_after(before: Any, waits: tuple[str, ...]) -> None:
    desk = Desk()
    before(desk)
    order = asked("buy", 3)
    assert desk.waits(order) == waits
    assert desk.orders.place(order).notes == tuple(f"edge waits: {why}" for why in waits)


def test_a_budget_that_leaves_less_is_said() -> None:
    tight = policy(budgets=(budget(2),), dry_run=False)
    assert Desk(tight).waits(asked("buy", 3)) == (
        "only 2 of 3 now, because budget of 2 workers per 1d leaves 2, 0 are committed",
    )


def test_what_one_policy_has_bought_for_an_order_is_not_another_ones() -> None:
    shared = Budget(workers=50, per=timedelta(days=1), shared="team")
    mine, other = (policy(name=name, cluster_id=name, budgets=(shared,)) for name in ("edge", "other"))
    desk = Desk(mine, other)
    first = desk.orders.place(asked("buy", 3, "*"), key="k")
    desk.keep(purchase(1, "fulfilled", 3, of=other, order_id=first.override.id))
    again = desk.orders.place(asked("buy", 3, "*"), key="k")
    assert [(effect.policy, effect.workers) for effect in again.effects] == [("edge", 3), ("other", 0)]


def test_a_buy_skips_the_cooldown_and_a_floor_does_not() -> None:
    desk = Desk()
    desk.keep(purchase(1, "fulfilled", of=EDGE, sent_at=at(minutes=-1)))
    assert desk.waits(asked("buy", 3)) == ()
    assert desk.waits(asked("floor", 13)) == ("cooldown until 12:09:00Z after purchase 1",)


def test_a_policy_that_only_the_ledger_knows_can_be_ordered_for() -> None:
    desk = Desk()
    desk.policies = ()
    (effect,) = desk.orders.place(asked("buy", 3)).effects
    assert (effect.imagined, effect.money) == (None, None)
    assert effect.says == "buys 3; its file cannot be read here"


def test_a_policy_that_nobody_evaluates_any_more_cannot() -> None:
    desk = Desk()
    desk.policies, desk.now = (), at(days=2)
    with pytest.raises(OrderRefused, match="there is no policy edge"):
        desk.orders.preview(asked("freeze"))


def test_a_policy_that_was_never_evaluated_waits_for_that() -> None:
    desk = Desk()
    desk.policies = (*desk.policies, policy(name="new"))
    assert desk.waits(asked("buy", 3, "new"), "new") == ("it has not been evaluated yet",)


# that it is recorded once


def test_a_preview_records_nothing() -> None:
    desk = Desk()
    desk.orders.preview(asked("freeze"))
    assert desk.ledger.overrides(NOW) == ()


def test_what_is_refused_is_not_recorded() -> None:
    desk = Desk()
    with pytest.raises(OrderRefused):
        desk.orders.place(asked("buy", 0))
    assert desk.ledger.override_history() == ()


def test_a_key_makes_one_order_of_a_repeated_request() -> None:
    desk = Desk()
    first = desk.orders.place(asked("buy", 3), key="k-1").override
    desk.now = at(minutes=1)
    assert desk.orders.place(asked("buy", 3), key="k-1").override == first
    assert desk.orders.place(asked("buy", 3, author="bo"), key="k-1").override.id == 2
    assert desk.orders.place(asked("buy", 3), key="k-2").override.id == 3
    with pytest.raises(KeyReused, match="the other order 1"):
        desk.orders.place(asked("buy", 4), key="k-1")
    desk.now = at(hours=24)
    assert desk.orders.place(asked("buy", 4), key="k-1").override.id == 4


# what is answered


def test_a_freeze_tells_of_what_was_sent_before_it() -> None:
    desk = Desk()
    states = [("accepted", "C1"), ("unknown", "C2"), ("intended", "C3"), ("fulfilled", "C4")]
    for id, (state, cluster_id) in enumerate(states, start=41):
        desk.keep(purchase(id, state, of=policy(cluster_id=cluster_id)))
    desk.keep(purchase(45, "accepted", of=policy(name="other", cluster_id="C5")))
    desk.keep(purchase(46, "accepted", of=policy(cluster_id="C6"), imagined=True))  # by a dry run: nothing was sent
    assert desk.orders.place(asked("freeze")).notes == (
        "purchase 41 of 3 for edge was already sent, 0 arrived",
        "purchase 42 of 3 for edge was already sent, and its outcome is unknown",
        "purchase 43 of 3 for edge was reserved and is not sent any more",
    )


def test_an_order_is_ended_once_and_stays_in_the_history() -> None:
    desk = Desk()
    placed = desk.orders.place(asked("freeze")).override
    desk.now = at(minutes=5)
    ended = desk.orders.end(placed.id, "bo", " over \n now ")
    assert ended == replace(placed, ended_at=at(minutes=5), ended_by="bo", ended_reason="over now")
    assert desk.orders.end(placed.id, "cy", "really") == ended
    assert desk.ledger.overrides(desk.now) == ()
    assert desk.ledger.override_history() == (ended,)
    with pytest.raises(OrderRefused, match="reason: is missing"):
        desk.orders.end(placed.id, "bo", "")
    with pytest.raises(NotFound):
        desk.orders.end(7, "bo", "over")


def test_how_far_a_buy_is_comes_from_its_purchases() -> None:
    desk = Desk()
    order = desk.orders.place(asked("buy", 9, "edge", "other")).override
    desk.keep(purchase(1, "fulfilled", 2, of=EDGE, order_id=order.id))
    desk.keep(purchase(2, "rejected", 2, of=EDGE, order_id=order.id))
    desk.keep(purchase(3, "unknown", 3, of=EDGE, order_id=order.id))
    desk.keep(purchase(4, "accepted", 4, of=OTHER))
    done = {each.policy: (each.done, each.workers) for each in progress(desk.ledger, [order])[order.id]}
    assert done == {"edge": (5, 9), "other": (0, 9)}
    assert progress(desk.ledger, []) == {}


def test_a_person_settles_an_unknown_purchase_and_may_say_so_again() -> None:
    desk = Desk()
    desk.keep(purchase(1, "unknown", of=EDGE, sent_at=NOW))
    with pytest.raises(TooEarly):
        desk.orders.settle(1, None, "ana", "no order")
    with pytest.raises(CannotSettle, match="bought must be 1 to 3"):
        desk.orders.settle(1, 4, "ana", "all")
    for _ in range(2):
        settled = desk.orders.settle(1, 2, "ana", "two in the console")
        assert (settled.state, settled.outstanding) == (PurchaseState.ACCEPTED, 2)
    assert [event.what for event in desk.ledger.purchase_events(1)] == ["bought 2: two in the console"]
    with pytest.raises(CannotSettle):
        desk.orders.settle(1, 2, "bo", "two in the console")


def test_an_order_by_a_clock_that_is_behind_the_ledgers_lasts_as_long_as_any() -> None:
    desk = Desk()
    behind = Orders(ledger=desk.ledger, policies=lambda: desk.policies, clock=lambda: at(hours=-1))
    assert behind.preview(asked("freeze", lasts=HOUR / 2)).override.ends_at == NOW + HOUR / 2
    placed = behind.place(asked("freeze", lasts=HOUR / 2)).override
    assert (placed.starts_at, placed.ends_at) == (NOW, NOW + HOUR / 2)
    assert desk.ledger.overrides(NOW) == (placed,)


def test_by_a_clock_that_is_ahead_of_the_ledgers_nobody_says_too_early_that_nothing_was_bought() -> None:
    desk = Desk()
    desk.keep(purchase(1, "unknown", of=EDGE, sent_at=NOW))
    ahead = Orders(ledger=desk.ledger, policies=list, clock=lambda: at(hours=2))
    with pytest.raises(TooEarly):
        ahead.settle(1, None, "ana", "no order")
    desk.now = at(hours=2)
    assert ahead.settle(1, None, "ana", "no order").state is PurchaseState.NOT_BOUGHT


def test_a_person_ends_a_refusal() -> None:
    desk = Desk()
    desk.keep(purchase(1, "rejected", of=EDGE))
    with pytest.raises(CannotSettle):
        desk.orders.retry(1, "ana", "granted")
