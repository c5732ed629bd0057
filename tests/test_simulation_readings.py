"""From which recorded value on a check wants more than so many workers: exactly, to the next double."""

from array import array
from datetime import timedelta
from fractions import Fraction
from math import inf, nextafter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscaler.model import CheckReading, Gap, GapReason, Reading
from autoscaler.policy import Check, Headroom
from autoscaler.simulation.load import Load
from autoscaler.simulation.readings import Conditions, Readings, least_double
from autoscaler.strategy import Fleet, Wish, evaluate
from tests.build import NOW, headroom, per_worker, policy, setpoint, steps

CHECKS = st.one_of(
    st.fractions(Fraction(1, 10), 5000, max_denominator=1000).map(per_worker),
    st.builds(
        setpoint,
        st.fractions(Fraction(1, 100), 3, max_denominator=1000),
        st.sampled_from(["0", "0.1", "0.37"]),
        over=st.sampled_from([None, "count(up)"]),
    ),
    st.sampled_from([steps((100, 1), (500, 3), (2000, "20%")), steps((3, "150%"), (7, 1))]),
)
ROOMS = st.integers(0, 60).map(headroom) | st.integers(0, 5).map(lambda workers: headroom(workers=workers))


@st.composite
def conditions(draw: st.DrawFn) -> Conditions:
    serving = draw(st.integers(1, 60))
    counted = draw(st.sampled_from([serving, serving, max(1, serving - 1)]))
    supply = counted + draw(st.integers(0, 9))
    return Conditions(serving, Fleet(counted, supply, draw(st.integers(0, supply))), ())


def of(check: Check, extra: Headroom, *values: float) -> Readings:
    load = Load(NOW, timedelta(minutes=1), len(values) or 1, {check.name: array("d", values or [0.0])})
    return Readings(policy(checks=(check,), headroom=extra), load)


def wants(check: Check, extra: Headroom, value: float, given: Conditions, more_than: int) -> bool:
    """What the strategy says of the reading itself."""
    (reading,) = of(check, extra, value).at(0, NOW, given)
    wish = evaluate(check, reading, given.fleet, extra)
    return isinstance(wish, Wish) and wish.wanted is not None and wish.wanted > more_than


@given(CHECKS, ROOMS, conditions(), st.integers(0, 90))
def test_the_least_value_that_wants_more_is_found_to_the_next_double(
    check: Check, extra: Headroom, given: Conditions, supply: int
) -> None:
    least = of(check, extra).least(0, supply, given)
    if least == inf:
        assert not wants(check, extra, 1e300, given, supply)
        return
    assert wants(check, extra, least, given, supply)
    assert not wants(check, extra, nextafter(least, 0), given, supply)


@given(CHECKS, ROOMS, conditions(), st.integers(0, 90), st.floats(0, 1e6))
def test_one_comparison_says_what_the_strategy_says(
    check: Check, extra: Headroom, given: Conditions, supply: int, value: float
) -> None:
    assert (value >= of(check, extra).least(0, supply, given)) == wants(check, extra, value, given, supply)


@given(st.floats(0, 1e300))
def test_the_least_double_is_found_among_all_there_are(bound: float) -> None:
    assume(bound > 0)
    assert least_double(lambda value: value >= bound) == bound


def test_no_double_is_the_least_where_none_will_do() -> None:
    assert least_double(lambda value: False) == inf


FLEET = Fleet(3, 4, 4)
READ: dict[str, tuple[Check, float, Conditions, CheckReading]] = {
    "a total is read as it was": (
        per_worker(),
        5873.5,
        Conditions(3, FLEET, ()),
        CheckReading("sessions", Reading(Fraction("5873.5"), NOW)),
    ),
    "a mean is its load over the workers that serve now": (
        setpoint(),
        8.45,
        Conditions(13, FLEET, ()),
        CheckReading("utilization", Reading(Fraction("0.65"), NOW)),
    ),
    "with a query for what it covers, those are read too": (
        setpoint(over="count(up)"),
        1.8,
        Conditions(4, FLEET, ()),
        CheckReading("utilization", Reading(Fraction("0.45"), NOW), Reading(Fraction(4), NOW)),
    ),
    "a mean of no workers is a gap": (
        setpoint(),
        1.8,
        Conditions(0, FLEET, ()),
        CheckReading("utilization", Gap(GapReason.NO_DATA, "a mean needs a worker that serves")),
    ),
    "what was not recorded is a gap": (
        per_worker(),
        float("nan"),
        Conditions(3, FLEET, ()),
        CheckReading("sessions", Gap(GapReason.NO_DATA, "nothing was recorded")),
    ),
    "a fault is a gap with its name": (
        per_worker(),
        5873.0,
        Conditions(3, FLEET, (("sessions", GapReason.STALE),)),
        CheckReading("sessions", Gap(GapReason.STALE, "a fault of the simulation")),
    ),
    "a fault of everything is one of each check": (
        per_worker(),
        5873.0,
        Conditions(3, FLEET, ((None, GapReason.TIMEOUT),)),
        CheckReading("sessions", Gap(GapReason.TIMEOUT, "a fault of the simulation")),
    ),
    "a fault of another check is none": (
        per_worker(),
        5873.0,
        Conditions(3, FLEET, (("queue", GapReason.TIMEOUT),)),
        CheckReading("sessions", Reading(Fraction(5873), NOW)),
    ),
}


@pytest.mark.parametrize(("check", "value", "given", "expected"), READ.values(), ids=READ)
def test_what_is_read(check: Check, value: float, given: Conditions, expected: CheckReading) -> None:
    assert of(check, headroom(), value).at(0, NOW, given) == (expected,)
