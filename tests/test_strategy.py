"""From a reading to workers wanted: each strategy at its edges, and the windows of a schedule."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model import Gap, GapReason
from autoscaler.policy import Check, Headroom, Schedule
from autoscaler.strategy import Fleet, Wish, evaluate, next_opening_at, number, open_windows
from tests.build import gap, headroom, per_worker, reading, schedule, setpoint, steps, unread, window

TEN = Fleet(serving=10, supply=10, supply_before=10)
NO_HEADROOM = headroom()
QUEUE = steps((100, 1), (500, 3), (2000, "20%"))


def wanted(
    check: Check, value: str, fleet: Fleet = TEN, over: int | None = None, room: Headroom = NO_HEADROOM
) -> Fraction | None:
    wish = evaluate(check, reading(value, check.name, over), fleet, room)
    assert isinstance(wish, Wish)
    return wish.wanted


WANTED = {
    "load over load per worker, unrounded": (per_worker(400), "5873", None, headroom(), "5873/400"),
    "headroom multiplies before anything is rounded": (
        per_worker(400),
        "5601",
        None,
        headroom(10),
        "61611/4000",
    ),  # case 3
    "50 + 10% is 55": (per_worker(1), "50", None, headroom(10), "55"),  # case 4
    "100 + 10% is 110": (per_worker(1), "100", None, headroom(10), "110"),  # case 4
    "decimals are exact": (per_worker("0.1"), "0.3", None, headroom(), "3"),
    "no load wants no headroom in percent": (per_worker(400), "0", None, headroom(10), "0"),
    "no load wants no headroom in workers": (per_worker(400), "0", None, headroom(workers=2), "0"),
    "a negative load is none": (per_worker(400), "-1", None, headroom(workers=2), "0"),
    "headroom in workers is added": (per_worker(400), "400", None, headroom(workers=2), "3"),
    "a mean over its target, times what it covers": (setpoint("0.6"), "1.8", 9, headroom(), "27"),  # case 4
    "a mean at its target wants nothing": (setpoint("0.65"), "0.65", None, headroom(10), None),
    "a mean at the end of its tolerance wants nothing": (
        setpoint("0.65", "0.1"),
        "0.715",
        None,
        headroom(10),
        None,
    ),  # case 2
    "a mean beyond its tolerance wants what the target asks for": (
        setpoint("0.65", "0.1"),
        "0.7150001",
        None,
        headroom(),
        "1430000200/130000000",
    ),
    "a mean of nothing wants nothing": (setpoint("0.65"), "0", 10, headroom(10), None),
    "a setpoint has headroom": (setpoint("0.5"), "1", 8, headroom(25), "20"),
    "below the first step nothing is wanted": (QUEUE, "99", None, headroom(10), None),  # case 1
    "at a step it adds, and no headroom": (QUEUE, "100", None, headroom(10), "11"),
    "just below the next step the lower one adds": (QUEUE, "499.9", None, headroom(), "11"),
    "at the next step that one adds": (QUEUE, "500", None, headroom(), "13"),
    "a percentage that is less than a lower step's count does not take workers away": (
        QUEUE,
        "2000",
        None,
        headroom(),
        "13",
    ),
}


@pytest.mark.parametrize(("check", "value", "over", "room", "expected"), WANTED.values(), ids=WANTED)
def test_wants(check: Check, value: str, over: int | None, room: Headroom, expected: str | None) -> None:
    assert wanted(check, value, over=over, room=room) == (None if expected is None else Fraction(expected))


def test_steps_add_to_the_supply_before_the_oldest_purchase_in_flight() -> None:
    assert wanted(QUEUE, "500", Fleet(serving=10, supply=12, supply_before=10)) == 13


class TestGaps:
    def test_a_gap_stays_a_gap(self) -> None:
        assert evaluate(per_worker(), unread(), TEN, NO_HEADROOM) == gap()

    def test_workers_that_cannot_be_counted_leave_per_worker_alone(self) -> None:
        wish = evaluate(per_worker(), reading(400), gap(), NO_HEADROOM)
        assert isinstance(wish, Wish)
        assert wish.wanted == 1

    @pytest.mark.parametrize("check", [setpoint(), QUEUE], ids=["setpoint", "steps"])
    def test_and_are_a_gap_of_what_relates_to_them(self, check: Check) -> None:
        assert evaluate(check, reading(1, check.name), gap(), NO_HEADROOM) == gap()

    def test_covered_workers_without_a_reading_are_a_gap(self) -> None:
        found = evaluate(setpoint(), reading(1, "utilization", over=gap(GapReason.NO_DATA)), TEN, NO_HEADROOM)
        assert found == gap(GapReason.NO_DATA)

    @pytest.mark.parametrize(
        ("covered", "serving", "is_gap"),
        [(8, 10, False), (7, 10, True), (1, 20, True), (0, 0, False), (13, 10, False)],  # case 7
        ids=["just 80%", "below 80%", "one site of twenty", "none of none", "more than serve"],
    )
    def test_a_mean_over_too_few_is_a_gap(self, covered: int, serving: int, is_gap: bool) -> None:
        found = evaluate(setpoint(), reading(1, "u", over=covered), Fleet(serving, serving, serving), NO_HEADROOM)
        assert isinstance(found, Gap) == is_gap
        if isinstance(found, Gap):
            assert found.reason is GapReason.PARTIAL_COVERAGE


SHANGHAI = schedule(window("0 18 * * *", timedelta(hours=6), timezone="Asia/Shanghai", lead=timedelta(minutes=40)))
BERLIN = schedule(window("30 2 * * *", timedelta(minutes=10), timezone="Europe/Berlin"))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}Z")


WINDOWS = {
    "a microsecond before its lead": (SHANGHAI, "2026-06-01T09:19:59.999999", False),
    "at its lead": (SHANGHAI, "2026-06-01T09:20", True),
    "at its hour": (SHANGHAI, "2026-06-01T10:00", True),
    "a microsecond before its end": (SHANGHAI, "2026-06-01T15:59:59.999999", True),
    "at its end": (SHANGHAI, "2026-06-01T16:00", False),
    "all day": (schedule(window("0 0 * * *", timedelta(hours=24))), "2026-06-01T23:59:59", True),
    "no leap day, no window": (schedule(window("0 12 29 2 *", timedelta(hours=1))), "2026-02-28T12:30", False),
    "a leap day": (schedule(window("0 12 29 2 *", timedelta(hours=1))), "2028-02-29T12:30", True),
    "the hour that comes twice": (BERLIN, "2026-10-25T00:35", True),
    "summer time": (BERLIN, "2026-06-01T00:35", True),
    "winter time": (BERLIN, "2026-12-01T01:35", True),
    "winter time is not summer time": (BERLIN, "2026-12-01T00:35", False),
}


@pytest.mark.parametrize(("check", "at", "is_open"), WINDOWS.values(), ids=WINDOWS)
def test_a_window_is_open(check: Schedule, at: str, is_open: bool) -> None:
    assert bool(open_windows(check, utc(at))) == is_open


def test_an_opening_tells_its_instants() -> None:  # case 31
    (opening,) = open_windows(SHANGHAI, utc("2026-06-01T12:00"))
    assert (opening.opens_at, opening.closes_at) == (utc("2026-06-01T09:20"), utc("2026-06-01T16:00"))


def test_overlapping_windows_are_all_open() -> None:
    both = schedule(window("0 18 * * *", workers=3), window("0 20 * * *", workers=5))
    assert {opening.window.workers for opening in open_windows(both, utc("2026-06-01T20:00"))} == {3, 5}


NEXT = {
    "before it opens": ("2026-06-01T09:19:59", "2026-06-01T09:20"),
    "as it opens": ("2026-06-01T09:20", "2026-06-02T09:20"),
    "within the minute it opened in": ("2026-06-01T09:20:30", "2026-06-02T09:20"),
}


@pytest.mark.parametrize(("at", "expected"), NEXT.values(), ids=NEXT)
def test_the_next_opening_lies_ahead(at: str, expected: str) -> None:
    assert next_opening_at(SHANGHAI, utc(at)) == utc(expected)


def of_2026(cron: str, zone: str) -> list[datetime]:
    """Every instant that a cron expression means in 2026, told forward from its start."""
    start = datetime(2025, 12, 1, tzinfo=ZoneInfo(zone))
    return [at.astimezone(UTC) for at in takewhile(lambda at: at.year < 2027, CronSim(cron, start))]


ZONES = [("30 2 * * *", "Europe/Berlin"), ("45 1,2 * * *", "Europe/Berlin"), ("15 1 * * 1-6", "Antarctica/Troll")]
OF_2026 = [(cron, zone, of_2026(cron, zone)) for cron, zone in ZONES]
# Weeks in which the clocks of Berlin and Troll change, and the year around them.
TIMES = st.one_of(
    *(
        st.datetimes(datetime(2026, month, day), datetime(2026, month, day + 7), timezones=st.just(UTC))
        for month, day in [(3, 23), (10, 19), (10, 24), (6, 1)]
    )
)


@given(st.sampled_from(OF_2026), TIMES)
def test_windows_are_right_over_changes_of_the_clocks(truth: tuple[str, str, list[datetime]], now: datetime) -> None:
    cron, zone, instants = truth
    check = schedule(window(cron, timedelta(days=9), timezone=zone))
    assert next_opening_at(check, now) == min(at for at in instants if at > now)
    assert [opening.opens_at for opening in open_windows(check, now)] == [max(at for at in instants if at <= now)]


NUMBERS = {
    "whole": (Fraction(5873), "5873"),
    "a decimal": (Fraction("0.65"), "0.65"),
    "four decimals": (Fraction(180, 13), "13.8462"),
    "almost whole": (Fraction("1.00000001"), "1"),
    "small": (Fraction("0.00001234567"), "1.235e-05"),
    "negative": (-3, "-3"),
    "large": (Fraction(10**20 + 1), "100000000000000000001"),
}


@pytest.mark.parametrize(("value", "text"), NUMBERS.values(), ids=NUMBERS)
def test_a_number_for_people(value: Fraction | int, text: str) -> None:
    assert number(value) == text


loads = st.fractions(min_value=0, max_value=100_000, max_denominator=1000)
checks = st.sampled_from([per_worker(400), per_worker("0.3"), setpoint("0.65"), setpoint("0.65", "0.1"), QUEUE])
fleets = st.builds(lambda a, b, c: Fleet(a, a + b, a + c), *[st.integers(0, 50)] * 3)
rooms = st.one_of(st.integers(0, 50).map(headroom), st.integers(0, 5).map(lambda n: headroom(workers=n)))


@given(checks, loads, loads, fleets, rooms)
def test_more_load_never_wants_fewer(
    check: Check, one: Fraction, other: Fraction, fleet: Fleet, room: Headroom
) -> None:
    less, more = (evaluate(check, reading(load, check.name), fleet, room) for load in sorted([one, other]))
    assert isinstance(less, Wish)
    assert isinstance(more, Wish)
    assert (more.wanted or 0) >= (less.wanted or 0)


@given(checks, fleets, rooms)
def test_no_load_wants_nobody(check: Check, fleet: Fleet, room: Headroom) -> None:
    wish = evaluate(check, reading(0, check.name), fleet, room)
    assert isinstance(wish, Wish)
    assert not wish.wanted
