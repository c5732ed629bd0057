"""Simulations worked out by hand: what is bought and when, in a cluster whose every minute is told."""

from array import array
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from autoscaler.budget import payments
from autoscaler.model import GapReason, RefusalClass
from autoscaler.policy import Policy
from autoscaler.simulation import (
    FOREIGN,
    HONEST,
    CapacityFault,
    ClusterFault,
    Fate,
    Fault,
    JoinDelay,
    Load,
    Market,
    PurchaseFault,
    ReadingFault,
    Simulation,
    WorkerFault,
    carried,
    exact,
    simulate,
)
from tests.build import NOW, at, budget, headroom, order, per_worker, policy, schedule, setpoint, steps, window

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def load(minutes: int = 60, step: timedelta = MINUTE, **series: float | Sequence[float]) -> Load:
    """A number stands for itself throughout."""
    made = {
        name: array("d", values if isinstance(values, Sequence) else [values] * minutes)
        for name, values in series.items()
    }
    return Load(NOW, step, minutes, made)


def said(simulation: Simulation) -> list[str]:
    """``"0 needed 3"``: the minute at which each span begins, its reason, and what it bought."""
    return [
        f"{(span.start_at - NOW) // MINUTE} {span.reason}" + (f" {span.add}" if span.add else "")
        for span in simulation.spans
    ]


def bought(simulation: Simulation) -> list[int]:
    return [purchase.asked for purchase in simulation.purchases]


STEPS_OF_QUEUE = steps((100, 1), (500, 3))

PURCHASES: dict[str, tuple[Policy, Load, int, list[int]]] = {
    "no load and no step reached buys nothing, whatever the headroom": (  # case 1
        policy(checks=(STEPS_OF_QUEUE,), headroom=headroom(10)),
        load(queue=99.0),
        10,
        [],
    ),
    "a mean within its tolerance buys nothing, whatever the headroom": (  # case 2
        policy(checks=(setpoint("0.65", "0.1"),), headroom=headroom(10)),
        load(utilization=7.15),
        10,
        [],
    ),
    "a mean just beyond its tolerance buys": (
        policy(checks=(setpoint("0.65", "0.1"),)),
        load(utilization=7.16),
        10,
        [2],
    ),
    "5601 at 400 each and 10 % are 16": (policy(headroom=headroom(10)), load(sessions=5601), 0, [16]),  # case 3
    "50 and 10 % are 55": (policy(checks=(per_worker(1),), headroom=headroom(10)), load(sessions=50), 0, [50, 5]),
    "1.8 on 3 workers with a target of 0.6 needs 9": (  # case 4
        policy(checks=(setpoint("0.6"),)),
        load(utilization=float(carried([1.8], [3])[0])),
        3,
        [6],
    ),
    "with a capacity query, workers that joined are not bought again": (  # case 5
        policy(capacity={"query": "count(up)"}),
        load(minutes=300, sessions=6000),
        10,
        [5],
    ),
    "a mean over ten exporters of thirteen workers is their load": (  # case 6
        policy(checks=(setpoint("0.65", over="count(up)"),)),
        load(utilization=carried([0.90], [10])[0]),
        13,
        [1],
    ),
    "a step that stays is bought once until its workers serve": (  # case 8: 10 minutes to join, 3 to warm up
        policy(checks=(STEPS_OF_QUEUE,), cooldown=timedelta(0)),
        load(minutes=13, queue=500),
        10,
        [3],
    ),
    "a step that stays counts afresh once they serve": (
        policy(checks=(STEPS_OF_QUEUE,), cooldown=timedelta(0)),
        load(minutes=14, queue=500),
        10,
        [3, 3],
    ),
    "a higher step adds the difference to a lower one": (  # case 9
        policy(checks=(STEPS_OF_QUEUE,), cooldown=timedelta(0)),
        load(minutes=13, queue=[100, *[500] * 12]),
        10,
        [1, 2],
    ),
    "the minimum needs no reading": (policy(checks=(setpoint(),), minimum=2), load(utilization=nan), 0, [2]),
    "a check without a series is a gap, and the other goes on": (
        policy(checks=(setpoint(), per_worker(400))),
        load(sessions=800),
        1,
        [1],
    ),
}


@pytest.mark.parametrize(("of", "recorded", "ready", "expected"), PURCHASES.values(), ids=PURCHASES)
def test_what_is_bought(of: Policy, recorded: Load, ready: int, expected: list[int]) -> None:
    assert bought(simulate(of, recorded, ready=ready)) == expected


FIVE = policy(cooldown=15 * MINUTE)
UNKNOWN = "purchase_unknown"

COURSES: dict[str, tuple[Policy, Sequence[Fault], list[str]]] = {
    "an honest market": (FIVE, [], ["0 needed 5", "1 enough"]),
    "accepted, and then it fails": (  # its task ends after 10 minutes; 5 minutes of backoff, and the cooldown, follow
        FIVE,
        [PurchaseFault(NOW, Fate.FAILED)],
        ["0 needed 5", "1 enough", "10 backoff", "15 needed 5", "16 enough"],
    ),
    "two of five arrive": (
        FIVE,
        [PurchaseFault(NOW, Fate.PARTIAL, arrive=2)],
        ["0 needed 5", "1 enough", "10 backoff", "15 needed 3", "16 enough"],
    ),
    "no answer, and nothing was bought: a person has to say so": (
        FIVE,
        [PurchaseFault(NOW, Fate.UNKNOWN), WorkerFault(at(minutes=2), 1)],
        ["0 needed 5", "1 enough", f"31 {UNKNOWN}"],  # half an hour after it was last seen ready
    ),
    "no answer, though it was bought: found by its task": (
        FIVE,
        [PurchaseFault(NOW, Fate.UNANSWERED)],
        ["0 needed 5", "1 enough"],
    ),
    "no answer, and the policy settles it itself": (
        policy(settle_unknown="after_quiet_period", timeout_mins=1),
        [PurchaseFault(NOW, Fate.UNKNOWN)],
        ["0 needed 5", "1 enough", "21 needed 5", "22 enough"],  # 15 + 1 + 5 minutes after it was signed
    ),
    "refused for now": (
        FIVE,
        [PurchaseFault(NOW, Fate.REFUSED)],
        ["0 needed 5", "1 backoff", "5 needed 5", "6 enough"],
    ),
    "refused by a busy cluster": (
        FIVE,
        [PurchaseFault(NOW, Fate.REFUSED, refusal=RefusalClass.BUSY)],
        ["0 needed 5", "1 needed 5", "2 enough"],
    ),
    "refused until the policy changes": (
        FIVE,
        [PurchaseFault(NOW, Fate.REFUSED, refusal=RefusalClass.POLICY)],
        ["0 needed 5", "1 refused_policy"],
    ),
    "refused until the credential changes": (
        FIVE,
        [PurchaseFault(NOW, Fate.REFUSED, refusal=RefusalClass.ACCOUNT)],
        ["0 needed 5", "1 refused_account"],
    ),
    "this cloud no longer sells this way": (
        FIVE,
        [PurchaseFault(NOW, Fate.REFUSED, refusal=RefusalClass.GONE)],
        ["0 needed 5", "1 refused_gone"],
    ),
    "the node list is a gap at first": (
        FIVE,
        [CapacityFault(NOW, at(minutes=4))],
        ["0 capacity_gap", "4 needed 5", "5 enough"],
    ),
    "the clocks differ at first": (
        FIVE,
        [CapacityFault(NOW, at(minutes=4), GapReason.CLOCK)],
        ["0 clock", "4 needed 5", "5 enough"],
    ),
    "the clock of Prometheus differs at first": (
        FIVE,
        [ReadingFault(NOW, at(minutes=4), "sessions", GapReason.CLOCK)],
        ["0 clock", "4 needed 5", "5 enough"],
    ),
    "Prometheus is down at first": (
        FIVE,
        [ReadingFault(NOW, at(minutes=4))],
        ["0 gap", "4 needed 5", "5 enough"],
    ),
    "somebody else scales the cluster out": (
        FIVE,
        [ClusterFault(NOW, at(minutes=4), FOREIGN)],
        ["0 foreign_scale_out", "4 needed 5", "5 enough"],
    ),
    "somebody else's scale-out that never ends": (  # after provision_timeout it is only a busy cluster
        policy(timeout_mins=1, provision_timeout=20 * MINUTE),
        [ClusterFault(NOW, at(minutes=30), FOREIGN)],
        ["0 foreign_scale_out", "20 cluster_busy", "30 needed 5", "31 enough"],
    ),
    "the cluster is being updated": (
        FIVE,
        [ClusterFault(NOW, at(minutes=4), "updating")],
        ["0 cluster_busy", "4 needed 5", "5 enough"],
    ),
    "two workers are lost for good": (  # they are replaced after half an hour
        FIVE,
        [WorkerFault(at(minutes=20), 2)],
        ["0 needed 5", "1 enough", "49 needed 2", "50 enough"],
    ),
    "two workers come back": (FIVE, [WorkerFault(at(minutes=20), 2, at(minutes=40))], ["0 needed 5", "1 enough"]),
}


@pytest.mark.parametrize(("of", "faults", "expected"), COURSES.values(), ids=COURSES)
def test_what_goes_wrong(of: Policy, faults: Sequence[Fault], expected: list[str]) -> None:
    assert said(simulate(of, load(sessions=6000), Market(faults=tuple(faults)), ready=10)) == expected


EVENING = schedule(window("0 18 * * *", workers=12, timezone="Asia/Shanghai", lead=70 * MINUTE))


def test_an_evening_begins_early_enough_for_three_purchases() -> None:  # case 31: 18:00 in Shanghai is 10:00 UTC
    of = policy(checks=(EVENING,), per_action=5, assumed_join=20 * MINUTE)
    begun = NOW - 4 * HOUR
    simulation = simulate(of, Load(begun, MINUTE, 240, {}), ready=0)
    assert [(p.sent_at, p.asked) for p in simulation.purchases] == [
        (at(hours=-3, minutes=-10), 5),
        (at(hours=-3, minutes=10), 5),
        (at(hours=-3, minutes=30), 2),
    ]
    assert [level.at for level in simulation.levels if level.serving == 12] == [at(hours=-3, minutes=53)]


def test_a_stabilization_window_lets_through_what_was_wanted_throughout() -> None:
    spike = [800, 800, 800, 2000, 800, 1600, 1200, 1200, 1200, 1200]
    simulation = simulate(policy(stabilization_window=3 * MINUTE), load(10, sessions=spike), ready=2)
    assert said(simulation) == ["0 enough", "3 stabilization", "4 enough", "5 stabilization", "7 needed 1", "8 enough"]


def test_an_order_and_a_freeze_hold_in_their_time() -> None:
    orders = (
        order("buy", 2, starts_at=at(minutes=5), ends_at=at(hours=1)),
        order("freeze", starts_at=at(minutes=3), ends_at=at(minutes=9)),
        order("floor", 9, starts_at=at(minutes=30), ends_at=at(hours=1)),
        order("cap", 9, starts_at=at(minutes=31), ends_at=at(hours=1)),
    )
    simulation = simulate(policy(), load(sessions=800), ready=2, overrides=orders)
    assert said(simulation) == ["0 enough", "5 freeze", "9 ordered 2", "10 enough", "30 needed 5", "31 enough"]
    assert simulation.purchases[0].order_id == 2  # the freeze began before it
    assert simulation.evaluation_at(at(minutes=7)).decision.sentence == (
        'blocked at 2: order 2 of ana lacks 2 of 2 ("derby tonight"), would buy 2 but '
        'frozen by ana until 12:09:00Z ("derby tonight")'
    )


def test_ten_workers_bought_in_one_minute_are_replaced_before_their_terms_end() -> None:  # case 32
    of = policy(worker_auto_renew=False, replace_before=2 * HOUR, per_action=4, maximum=20)
    fewest = 10
    simulation = simulate(of, load(60 * 24 * 32, sessions=4000), ready=0)
    ends = NOW.replace(month=7)
    replacing = [purchase for purchase in simulation.purchases if purchase.reserved_at > at(days=20)]
    assert sum(purchase.asked for purchase in replacing) == 10
    assert all(ends - 2 * HOUR <= purchase.reserved_at < ends for purchase in replacing)
    assert {level.serving >= fewest for level in simulation.levels if level.at > at(hours=1)} == {True}
    assert not [span for span in simulation.spans if span.reason == "cluster_unhealthy"]


def test_renewals_count_in_a_budget_of_money() -> None:  # case 33
    per = timedelta(days=30)
    of = policy(price_per_worker_month="180", currency="CNY", budgets=(budget(money=5000, per=per),))
    growing = [400.0 * min(60, minute // 60) for minute in range(60 * 24 * 80)]
    simulation = simulate(of, load(len(growing), sessions=growing), ready=0)
    assert 20 < sum(bought(simulation)) < 60
    paid = [payment for purchase in simulation.purchases for payment in payments(purchase, simulation.load.end_at)]
    for made_at in (purchase.sent_at for purchase in simulation.purchases):
        assert made_at is not None
        for end in [made_at, *(when for when, _ in paid if made_at <= when < made_at + per)]:
            assert sum(money for when, money in paid if end - per < when <= end) <= 5000


def test_equal_arguments_give_equal_results() -> None:
    market = Market(join=JoinDelay(MINUTE, 9 * MINUTE, HOUR), failing=0.2, seed=4)
    rising = load(600, sessions=[20.0 * minute for minute in range(600)])
    first, second = (simulate(policy(per_action=4), rising, market, ready=1) for _ in range(2))
    assert (first.spans, first.purchases, first.tenures) == (second.spans, second.purchases, second.tenures)
    other = simulate(policy(per_action=4), rising, Market(market.join, 0.2, seed=5), ready=1)
    assert other.tenures != first.tenures


def test_a_join_delay_stays_within_its_bounds() -> None:
    join = JoinDelay(4 * MINUTE, 5 * MINUTE, 20 * MINUTE)
    simulation = simulate(policy(), load(sessions=12000), Market(join=join, seed=1), ready=0)
    delays = [tenure.ready_at - tenure.since for tenure in simulation.tenures if tenure.ready_at]
    assert len(delays) == 30
    assert 4 * MINUTE <= min(delays) < max(delays) <= 20 * MINUTE
    assert len(set(delays)) > 5


def test_a_policy_is_simulated_as_live() -> None:
    simulation = simulate(policy(dry_run=True), load(sessions=800), ready=1)
    assert [purchase.imagined for purchase in simulation.purchases] == [False]


def test_progress_is_told_up_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    simulate(policy(), load(sessions=800), ready=0, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (60, 60)
    assert sorted(seen) == seen


def test_one_tick_is_a_simulation() -> None:
    assert said(simulate(policy(), load(1, sessions=800), ready=0)) == ["0 needed 2"]
    assert said(simulate(policy(), load(1, sessions=nan), ready=0)) == ["0 gap"]


def test_an_instant_outside_of_the_load_has_no_evaluation() -> None:
    simulation = simulate(policy(), load(sessions=800), ready=0)
    with pytest.raises(ValueError, match="outside of the load"):
        simulation.evaluation_at(at(hours=1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: load(0, sessions=[]), "no ticks", id="no values"),
        pytest.param(lambda: load(2, sessions=[1.0]), '"sessions" has 1 values for 2 ticks', id="a short series"),
        pytest.param(
            lambda: load(2, sessions=[1.0, inf]), '"sessions" holds an infinite value', id="an infinite value"
        ),
        pytest.param(lambda: load(2, step=timedelta(0), sessions=1.0), "more than nothing", id="no time between"),
        pytest.param(lambda: Load(NOW.replace(tzinfo=None), MINUTE, 1, {}), "names no time zone", id="a naive start"),
        pytest.param(lambda: JoinDelay(HOUR, MINUTE, HOUR), "least ≤ likely ≤ most", id="a delay out of order"),
        pytest.param(lambda: Market(failing=2), "2 is no chance", id="a chance above 1"),
        pytest.param(lambda: simulate(policy(), load(sessions=1), ready=-1), "-1 workers", id="fewer than no workers"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("mean", "over", "expected"),
    [(0.65, 13, 8.45), (0.9, 10, 9.0), (1.1, 3, 3.3), (0.1, 3, 0.3), (0.123456, 7, 0.864192)],
)
def test_a_mean_times_its_workers_is_the_decimal_it_was(mean: float, over: float, expected: float) -> None:
    assert carried([mean], [over])[0] == expected


def test_a_gap_in_a_mean_or_its_workers_is_a_gap() -> None:
    assert [value != value for value in carried([nan, 0.5, 0.5], [3, nan, 3])] == [True, True, False]


def test_a_recorded_value_means_its_decimal_text() -> None:
    assert (exact(0.1), exact(5601.0), exact(1e22)) == (Fraction(1, 10), Fraction(5601), Fraction(10**22))


def test_a_load_knows_its_instants() -> None:
    recorded = Load(datetime(2026, 6, 1, tzinfo=UTC), timedelta(seconds=30), 4, {})
    assert recorded.end_at == datetime(2026, 6, 1, 0, 2, tzinfo=UTC)
    assert recorded.tick(datetime(2026, 6, 1, 0, 0, 59, tzinfo=UTC)) == 1
    assert Market() == HONEST
