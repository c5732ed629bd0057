"""Where workers stand, and how they are counted from a list that lags, a query that lags, and purchases."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.model import Arrival, Capacity, Purchase, Worker
from autoscaler.policy import Policy
from autoscaler.supply import Stage, Supply, changes_at, count, dropped_out, stage, supply_before, term_ends_at
from tests.build import NOW, arrivals, arrived_workers, at, capacity, joining, lost, policy, purchase, warming, worker
from tests.build import workers as serving

POLICY = policy()
SECOND = timedelta(seconds=1)
NOT_READY = {"ready": False, "ready_at": None, "last_ready_at": None}


def counted(of: Capacity, *purchases: Purchase, by: Policy = POLICY, now: datetime = NOW) -> Supply:
    return count(by, of, purchases, now)


STAGES: dict[str, tuple[Worker, bool, Stage]] = {
    "listed and never ready, it is joining": (joining()[0], False, Stage.JOINING),
    "a second before provision_timeout it still is": (
        worker(first_seen_at=at(minutes=-90, seconds=1), **NOT_READY),
        False,
        Stage.JOINING,
    ),
    "at provision_timeout it is no longer expected": (
        worker(first_seen_at=at(minutes=-90), **NOT_READY),
        False,
        Stage.WRITTEN_OFF,
    ),
    "given up by its task, it is no longer expected": (joining()[0], True, Stage.WRITTEN_OFF),
    "given up by its task, it may be ready all the same": (worker(), True, Stage.SERVING),
    "ready for less than warm_up, it is warming": (worker(ready_at=at(minutes=-3, seconds=1)), False, Stage.WARMING),
    "ready for warm_up, it serves": (worker(ready_at=at(minutes=-3)), False, Stage.SERVING),
    "not ready any more, it is lost": (lost(since=at(minutes=-30, seconds=1))[0], False, Stage.LOST),
    "lost for replace_after, it is replaced": (lost(since=at(minutes=-30))[0], False, Stage.WRITTEN_OFF),
    "not listed, it is lost": (lost(listed=False)[0], False, Stage.LOST),
    "lost while it warmed up, it is lost": (
        worker(ready=False, ready_at=at(minutes=-1), last_ready_at=at(minutes=-1)),
        False,
        Stage.LOST,
    ),
    "back again, it serves at once": (worker(ready_at=at(hours=-5)), False, Stage.SERVING),
}


@pytest.mark.parametrize(("of", "failed", "expected"), STAGES.values(), ids=STAGES)
def test_a_worker_stands(of: Worker, failed: bool, expected: Stage) -> None:
    assert stage(of, POLICY, NOW, failed=failed) is expected


FLEET = serving(10) + joining(2) + warming(1) + lost(1)


def test_counts_the_list() -> None:
    found = counted(capacity(FLEET))
    assert (found.serving, found.joining, found.warming, found.lost) == (10, 2, 1, 1)
    assert (found.in_flight, found.total, found.paid, found.unhealthy) == (3, 14, 14, False)


OPEN = purchase(1, "accepted", asked=3)
LATE = purchase(1, "expired", asked=3, sent_at=at(hours=-3))
DONE = purchase(1, "fulfilled", asked=3)
IMAGINED = purchase(1, "fulfilled", asked=3, imagined=True, arrivals=arrivals(1, 3, at(hours=-1)))

COUNTS: dict[str, tuple[Capacity, Sequence[Purchase], str]] = {
    "nothing asked for is nothing": (capacity(serving(10)), [], "serving 10, expected 0, total 10, paid 10"),
    "an open purchase is expected and paid": (
        capacity(serving(10)),
        [OPEN],
        "serving 10, expected 3, total 13, paid 13",
    ),
    "of unknown outcome it is too": (
        capacity(serving(10)),
        [purchase(1, "unknown", asked=3)],
        "serving 10, expected 3, total 13, paid 13",
    ),
    "listed but not yet attached, its workers count twice": (
        capacity(serving(10) + joining(3)),
        [OPEN],
        "serving 10, expected 3, total 16, paid 16",
    ),
    "attached, they count once": (
        capacity(serving(10) + arrived_workers(DONE, **NOT_READY, first_seen_at=at(minutes=-5))),
        [DONE],
        "serving 10, expected 0, total 13, paid 13",
    ),
    "attached by a newer look, they count from the purchase": (
        capacity(serving(10)),
        [DONE],
        "serving 10, expected 3, total 13, paid 13",
    ),
    "attached and since gone, they count no more": (
        capacity(serving(10)),
        [replace(DONE, arrivals=tuple(Arrival(f"gone-{n}", at(days=-9), at(days=-1)) for n in range(3)))],
        "serving 10, expected 0, total 10, paid 10",
    ),
    "an expired purchase is paid and not expected": (
        capacity(serving(10)),
        [LATE],
        "serving 10, expected 0, total 10, paid 13",
    ),
    "what its task gave up is neither": (
        capacity(serving(10)),
        [purchase(1, "failed", asked=3, failed=3)],
        "serving 10, expected 0, total 10, paid 10",
    ),
    "what its task gave up by name is paid while it is listed": (
        capacity(serving(10) + joining(1)),
        [purchase(1, "failed", asked=1, failed=1, failures=("joining-1",))],
        "serving 10, expected 0, total 10, paid 11",
    ),
    "a query that counts more than the list is believed": (
        capacity(serving(8) + joining(2), counted=10),
        [],
        "serving 10, expected 0, total 12, paid 10",
    ),
    "a query that counts less is not, where the list tells the workers apart": (  # case 5
        capacity(serving(15), counted=10),
        [],
        "serving 15, expected 0, total 15, paid 15",
    ),
    "where it cannot, those listed and not serving stand beside the query": (
        capacity(serving(2) + joining(2), counted=10, alone=False),
        [],
        "serving 10, expected 0, total 12, paid 12",
    ),
    "imagined ones that arrived by a clock that was ahead are expected": (
        capacity(serving(10)),
        [purchase(1, "fulfilled", asked=3, imagined=True, arrivals=arrivals(1, 3, at(hours=1)))],
        "serving 10, expected 3, total 13, paid 13",
    ),
    "imagined workers serve": (capacity(serving(10)), [IMAGINED], "serving 13, expected 0, total 13, paid 13"),
    "beside a query too": (
        capacity(serving(10), counted=10),
        [IMAGINED],
        "serving 13, expected 0, total 13, paid 13",
    ),
}


@pytest.mark.parametrize(("of", "purchases", "expected"), COUNTS.values(), ids=COUNTS)
def test_counts(of: Capacity, purchases: Sequence[Purchase], expected: str) -> None:
    found = counted(of, *purchases)
    assert f"serving {found.serving}, expected {found.expected}, total {found.total}, paid {found.paid}" == expected


class TestTerms:
    """An unrenewed worker lapses at the end of its months."""

    ONCE = policy(worker_auto_renew=False)
    LAST_HOUR = at(hours=1)

    def test_it_is_no_supply_in_its_last_hour_and_still_paid(self) -> None:
        found = counted(capacity(serving(3, expires_at=self.LAST_HOUR)), by=self.ONCE)
        assert (found.serving, found.lapsing, found.total, found.paid) == (3, 3, 0, 3)

    def test_a_second_earlier_it_is_supply(self) -> None:
        assert counted(capacity(serving(3, expires_at=self.LAST_HOUR + SECOND)), by=self.ONCE).total == 3

    def test_one_lost_for_good_does_not_lapse_twice(self) -> None:
        gone = lost(1, since=at(hours=-2), expires_at=self.LAST_HOUR)
        assert counted(capacity(serving(2) + gone), by=self.ONCE).total == 2

    def test_the_terms_of_its_purchase_count_not_todays_policy(self) -> None:
        bought = purchase(1, "fulfilled", asked=2, of=self.ONCE)
        of = capacity(arrived_workers(bought, expires_at=self.LAST_HOUR))
        assert counted(of, bought).total == 0

    def test_without_a_date_from_the_cloud_the_purchase_tells_it(self) -> None:
        bought = purchase(1, "fulfilled", asked=1, of=self.ONCE, sent_at=datetime.fromisoformat("2026-05-01T13:00Z"))
        assert term_ends_at(bought) == at(hours=1)
        assert counted(capacity(arrived_workers(bought)), bought).total == 0

    def test_what_never_came_is_paid_until_the_term_ends(self) -> None:
        late = purchase(1, "expired", asked=3, sent_at=datetime.fromisoformat("2026-05-01T12:00Z"))
        assert counted(capacity(), late, now=NOW - SECOND).paid == 3
        assert counted(capacity(), late, now=NOW).paid == 0

    def test_one_that_left_the_list_at_its_end_is_neither_lost_nor_paid(self) -> None:
        gone = lost(4, since=at(minutes=-5), listed=False, expires_at=NOW)
        found = counted(capacity(serving(5) + gone), by=self.ONCE)
        assert (found.lost, found.total, found.paid) == (0, 5, 5)
        assert not counted(capacity(serving(4) + gone), by=self.ONCE).unhealthy

    def test_one_that_is_listed_beyond_its_end_was_renewed_by_somebody(self) -> None:
        assert counted(capacity(serving(3, expires_at=at(hours=-1))), by=self.ONCE).paid == 3

    def test_imagined_workers_leave_with_their_term(self) -> None:
        sent_at = datetime.fromisoformat("2026-05-01T12:00Z")
        bought = purchase(1, "fulfilled", asked=3, of=self.ONCE, sent_at=sent_at, imagined=True)
        assert counted(capacity(), bought, now=NOW - SECOND).paid == 3
        assert counted(capacity(), bought, now=NOW).paid == 0


@pytest.mark.parametrize(
    ("workers", "unhealthy"),
    [
        (serving(0) + lost(3), False),
        (serving(4) + lost(4), True),
        (serving(5) + lost(4), False),
        (serving(11) + lost(9), False),
        (serving(10) + lost(9), True),
        (joining(20), False),
    ],
    ids=["three of three", "four of eight", "four of nine", "45% of twenty", "more than 45%", "twenty that join"],
)
def test_many_lost_at_once_are_unhealthy(workers: tuple[Worker, ...], unhealthy: bool) -> None:  # case 11
    assert counted(capacity(workers)).unhealthy == unhealthy


def test_workers_that_die_one_by_one_over_weeks_are_no_cut_line() -> None:
    dead = tuple(worker(f"dead-{week}", ready=False, last_ready_at=NOW - timedelta(weeks=week)) for week in range(1, 5))
    fleet = counted(capacity(serving(4) + dead))
    assert (fleet.unhealthy, fleet.written_off) == (False, 4)


def test_workers_that_never_were_ready_did_not_drop_out() -> None:
    assert dropped_out(capacity(FLEET)) == 1


class TestSupplyBefore:
    """What steps add to."""

    def before(self, of: Capacity, *purchases: Purchase) -> int | None:
        return supply_before(POLICY, of, purchases, NOW)

    def test_of_the_oldest_purchase_in_flight(self) -> None:  # case 9
        assert self.before(capacity(), replace(OPEN, supply_before=10), replace(OPEN, id=2, supply_before=11)) == 10

    def test_of_none_in_flight(self) -> None:
        assert self.before(capacity(arrived_workers(DONE)), DONE) is None

    @pytest.mark.parametrize(
        "fields", [NOT_READY | {"first_seen_at": at(minutes=-5)}, {"ready_at": at(minutes=-1)}], ids=["joins", "warms"]
    )
    def test_while_one_of_its_workers(self, fields: dict[str, object]) -> None:  # case 8
        assert self.before(capacity(arrived_workers(DONE, **fields)), replace(DONE, supply_before=7)) == 7

    def test_while_imagined_workers_warm_up(self) -> None:
        fresh = replace(IMAGINED, arrivals=arrivals(1, 3, at(minutes=-1)), supply_before=7)
        assert self.before(capacity(), fresh) == 7
        assert self.before(capacity(), IMAGINED) is None


instants = st.integers(-200, 0).map(lambda minutes: at(minutes=minutes))


@st.composite
def any_worker(draw: st.DrawFn) -> Worker:
    seen, ready_at, last = draw(instants), draw(st.none() | instants), draw(instants)
    return worker(
        f"i-{draw(st.integers(0, 10**9))}",
        listed=(listed := draw(st.booleans())),
        ready=listed and ready_at is not None and draw(st.booleans()),
        first_seen_at=seen,
        ready_at=ready_at,
        last_ready_at=None if ready_at is None else max(ready_at, last),
        expires_at=draw(st.none() | st.integers(-10, 300).map(lambda minutes: at(minutes=minutes))),
    )


@given(st.lists(any_worker(), max_size=6), st.booleans(), st.integers(0, 60 * 24), st.data())
def test_time_alone_changes_nothing_before_it_is_said_to(
    workers: list[Worker], renews: bool, minutes: int, data: st.DataObject
) -> None:
    of, made = capacity(workers), policy(worker_auto_renew=renews)
    purchases = [replace(LATE, sent_at=at(minutes=-minutes)), IMAGINED]
    changes = [instant for instant in changes_at(made, of, purchases) if instant > NOW]
    until = min(changes, default=at(days=1))
    later = data.draw(st.datetimes(NOW.replace(tzinfo=None), (until - timedelta(microseconds=1)).replace(tzinfo=None)))
    assert count(made, of, purchases, later.replace(tzinfo=NOW.tzinfo)) == count(made, of, purchases, NOW)
