"""A sample of ``make crashes``: every trouble without a crash, and with one at a place that differs from row to row."""

from itertools import cycle

import pytest

from tests.crashes.campaign import run_all
from tests.crashes.course import Outcome, Plan, Successor
from tests.crashes.effects import Point
from tests.crashes.troubles import TROUBLES

# The first test waits for all courses of the sample, which a busy machine does not run within the limit of one test.
pytestmark = pytest.mark.timeout(400)

# As many as not to fit the successors' four: in time every one of them meets every other.
POINTS = (
    Point("reserve", "INSERT purchases"),
    Point("send", "body sent"),
    Point("reserve", "committed"),
    Point("record", "UPDATE purchases"),
    Point("claim", "COMMIT"),
    Point("answer", "status and headers heard"),
    Point("settle", "GET"),
    Point("claim", "committed"),
    Point("settle", "UPDATE purchases"),
    Point("connect", "before connecting"),
    Point("record", "committed"),
    Point("reserve", "COMMIT"),
    Point("send", "headers sent"),
)
STILL = tuple(point for point in POINTS if not point.what.startswith(("INSERT", "UPDATE", "COMMIT")))

ALONE = {trouble.name: Plan(trouble) for trouble in TROUBLES}
CRASHED = {
    trouble.name: Plan(trouble, successor, (next(still if successor.stands_still else points),))
    for points, still in [(cycle(POINTS), cycle(STILL))]
    for trouble, successor in zip(TROUBLES, cycle(Successor), strict=False)
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """All of them, run side by side."""
    plans = [*ALONE.values(), *CRASHED.values()]
    return {str(outcome.plan): outcome for outcome in run_all(plans)}


@pytest.mark.parametrize("trouble", ALONE)
def test_a_course_with_a_trouble_ends_as_it_should(trouble: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[str(ALONE[trouble])]
    assert outcome.problems == []
    assert outcome.points == []


@pytest.mark.parametrize("trouble", CRASHED)
def test_a_replica_that_dies_or_stands_still_doubles_and_loses_nothing(
    trouble: str, outcomes: dict[str, Outcome]
) -> None:
    assert outcomes[str(CRASHED[trouble])].problems == []


def test_most_of_the_sample_really_dies(outcomes: dict[str, Outcome]) -> None:
    # An answer that was never heard has no point to die at, and so on.
    died = sum(len(outcomes[str(plan)].points) for plan in CRASHED.values())
    assert died > 0.8 * len(CRASHED)
