"""What a simulation says in numbers, worked out by hand; and the optimum, held against every way there is to buy."""

import sys
from array import array
from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import product
from math import ceil, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.facts import Reason
from autoscaler.policy import Policy
from autoscaler.simulation import (
    Fate,
    Held,
    Load,
    Market,
    OptimumUnavailable,
    PurchaseFault,
    figures,
    needed,
    optimum,
    simulate,
)
from autoscaler.supply import Lapse
from tests.build import NOW, at, headroom, per_worker, policy, setpoint, steps

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
PRICED = policy(price_per_worker_month="180", currency="CNY")


def load(step: timedelta = MINUTE, **series: Sequence[float]) -> Load:
    made = {name: array("d", values) for name, values in series.items()}
    return Load(NOW, step, len(next(iter(made.values()))), made)


RISE = load(sessions=[*[800] * 10, *[2000] * 50])  # 2 workers, and from the tenth minute on 5


def test_the_numbers_of_one_rise() -> None:
    said = figures(simulate(PRICED, RISE, ready=2))
    assert (said.purchases, said.bought, said.arrived) == (1, 3, 3)
    assert (said.peak_paid, said.peak_serving) == (5, 5)
    assert said.node_hours == 2 + Fraction(3 * 50, 60)
    assert (said.money_bought, said.money_renewed, said.money) == (540, 0, 540)
    (short,) = said.shortages  # 10 minutes to join and 3 to warm up
    assert (short.start_at, short.lasted, short.caught_up) == (at(minutes=10), 13 * MINUTE, True)
    assert (short.most, short.worker_time) == (3, 39 * MINUTE)
    assert (said.short_for, said.short_worker_time) == (13 * MINUTE, 39 * MINUTE)
    assert said.longest_shortage == 13 * MINUTE
    assert (said.held, said.lapses) == ((), ())


def test_what_held_while_load_was_short() -> None:
    of = policy(per_action=1, cooldown=30 * MINUTE)
    said = figures(simulate(of, load(sessions=[*[800] * 5, *[1200] * 20, *[1600] * 6, *[400] * 29]), ready=2))
    assert said.held == (Held(Reason.COOLDOWN, 1, 1, 6 * MINUTE, 6 * MINUTE),)
    assert [(short.start_at, short.lasted) for short in said.shortages] == [
        (at(minutes=5), 13 * MINUTE),
        (at(minutes=25), 6 * MINUTE),
    ]


def test_a_shortage_that_lasts_to_the_end_is_not_caught_up() -> None:
    (short,) = figures(simulate(policy(maximum=1), load(sessions=[1200.0] * 60), ready=0)).shortages
    assert (short.caught_up, short.end_at, short.most, short.worker_time) == (
        False,
        at(hours=1),
        3,
        HOUR * 2 + 13 * MINUTE,
    )


def test_without_a_price_there_is_no_money() -> None:
    assert figures(simulate(policy(), RISE, ready=2)).money is None


def test_renewals_are_told_beside_what_was_bought() -> None:
    said = figures(simulate(PRICED, load(HOUR, sessions=[800.0] * 24 * 70), ready=1))  # 1 June to 10 August
    assert (said.money_bought, said.money_renewed) == (180, 360)
    assert said.lapses == ()


def test_terms_that_end_are_told_also_after_the_load() -> None:
    of = policy(worker_auto_renew=False, replace_before=2 * HOUR)
    simulation = simulate(of, load(HOUR, sessions=[1200.0] * 24 * 32), Market(standing_ends=(at(days=9),)), ready=2)
    assert figures(simulation).lapses == (
        Lapse(at(days=9), 1),
        Lapse(NOW.replace(month=7), 1),
        Lapse(at(days=9, hours=-2).replace(month=7), 1),
        Lapse(NOW.replace(month=8) - 2 * HOUR, 1),
    )


def test_what_a_task_gave_up_stays_committed_and_never_arrives() -> None:
    market = Market(faults=(PurchaseFault(NOW, Fate.PARTIAL, arrive=1),))
    said = figures(simulate(PRICED, load(sessions=[1200.0] * 5), market, ready=0))
    assert (said.bought, said.money, said.peak_paid) == (3, 540, 1)


def test_a_shortage_that_ends_in_a_gap_is_not_known_to_be_caught_up() -> None:
    (first, second) = figures(simulate(policy(maximum=1), load(sessions=[800.0, nan, 800, 400]), ready=1)).shortages
    assert (first.lasted, first.caught_up) == (MINUTE, None)
    assert (second.lasted, second.caught_up) == (MINUTE, True)


@pytest.mark.parametrize(
    ("of", "series", "expected"),
    [
        pytest.param(policy(headroom=headroom(50)), {"sessions": [0, 400, 400.1, nan]}, [0, 1, 2, 0], id="no headroom"),
        pytest.param(
            policy(checks=(setpoint("0.6", "0.1"),)), {"utilization": [0.66, 0.67, 6.6]}, [1, 2, 10], id="a tolerance"
        ),
        pytest.param(
            policy(checks=(per_worker(400), setpoint("0.5"))),
            {"sessions": [800, 800], "utilization": [0.5, 1.7]},
            [2, 4],
            id="the largest of several",
        ),
        pytest.param(policy(checks=(steps((1, 3)),)), {"queue": [5, 5]}, [0, 0], id="steps name no number"),
        pytest.param(policy(), {"sessions": [-3, 1e-9]}, [0, 1], id="load below nothing"),
        pytest.param(
            policy(checks=(setpoint("0.1"),)),
            {"utilization": [1e18, 1e308]},
            [10**6, 10**6],
            id="no earthly load",
        ),
    ],
)
def test_what_load_needs(of: Policy, series: dict[str, list[float]], expected: list[int]) -> None:
    assert list(needed(of, load(**series))) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**4))
def test_what_load_needs_is_exact(tenths: int, each: int) -> None:
    of = policy(checks=(per_worker(Fraction(each, 10)),))
    assert list(needed(of, load(sessions=[tenths / 10]))) == [ceil(Fraction(tenths, each))]


# --- the optimum ---

MONTHLY = policy(price_per_worker_month="180", currency="CNY", worker_auto_renew=False)
DAY = timedelta(days=1)


def of_need(*workers: int, step: timedelta) -> Load:
    return load(step, sessions=[400.0 * each for each in workers])


def test_the_optimum_buys_once_what_is_needed_for_a_term() -> None:
    # On 1, 11, 21 June, 1, 11 July: of the two rises the second is within the month of the first.
    pytest.importorskip("highspy")
    best = optimum(simulate(MONTHLY, of_need(3, 1, 3, 1, 3, step=10 * DAY), ready=1), grid=10 * DAY)
    assert best.bought == ((NOW, 2), (at(days=40), 2))
    assert (best.workers, best.money, best.grid) == (4, 720, 10 * DAY)


def test_levels_one_at_a_time_would_cost_more() -> None:
    # The worker of the first level may carry the second when its own is not needed: intervals that overlap, no levels.
    pytest.importorskip("highspy")
    best = optimum(simulate(MONTHLY, of_need(1, 2, 2, 1, step=20 * DAY), ready=0), grid=20 * DAY)
    assert (best.workers, dict(best.bought)) == (3, {NOW: 1, at(days=20): 1, at(days=40): 1})


def test_workers_there_at_the_start_serve_until_their_terms_end() -> None:
    pytest.importorskip("highspy")
    market = Market(standing_ends=(at(days=15),))
    best = optimum(simulate(MONTHLY, of_need(2, 2, 2, step=10 * DAY), market, ready=2), grid=10 * DAY)
    assert best.bought == ((at(days=10), 1),)


def test_no_load_needs_no_solver() -> None:
    pytest.importorskip("highspy")
    assert optimum(simulate(MONTHLY, of_need(0, 0, step=DAY), ready=0)).workers == 0


def fewest(needs: Sequence[int], starts: Sequence[datetime]) -> int:
    """By trying every number of workers at every instant."""
    best = sum(needs)
    for tried in product(range(max(needs) + 1), repeat=len(needs)):
        there = [
            sum(
                n for n, began in zip(tried, starts, strict=True) if began <= now < began.replace(month=began.month + 1)
            )
            for now in starts
        ]
        if sum(tried) < best and all(have >= need for have, need in zip(there, needs, strict=True)):
            best = sum(tried)
    return best


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.sampled_from([7, 14, 17]))
def test_the_optimum_is_the_fewest_of_all_ways_to_buy(needs: list[int], days: int) -> None:
    pytest.importorskip("highspy")
    recorded = of_need(*needs, step=days * DAY)
    best = optimum(simulate(MONTHLY, recorded, ready=0), grid=days * DAY)
    assert best.workers == fewest(needs, [recorded.at(tick) for tick in range(len(needs))])


def test_without_the_solver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(OptimumUnavailable, match=r"pip install 'autoscaler\[optimum\]'"):
        optimum(simulate(MONTHLY, RISE, ready=0))


def test_the_solver_says_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("highspy")
    optimum(simulate(MONTHLY, RISE, ready=0))
    assert capfd.readouterr().out == ""
