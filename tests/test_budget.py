"""What budgets leave, against a plain re-telling of "in no window more than the limit"."""

import calendar
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.budget import Room, money_of, room
from autoscaler.model import Arrival, Purchase
from autoscaler.policy import Budget, Policy
from autoscaler.purchase import terms
from tests.build import NOW, arrivals, at, budget, policy, purchase

DAY, MONTH = timedelta(days=1), timedelta(days=30)
SECOND = timedelta(seconds=1)
MONEY = {"price_per_worker_month": "180"}
RENEWED = policy(**MONEY)
ONCE = policy(**MONEY, worker_auto_renew=False)
FIVE_THOUSAND = budget(money=5000, per=MONTH)
TEN_A_DAY = budget(10)


def left(of: Budget, *purchases: Purchase, by: Policy = RENEWED, now: datetime = NOW) -> Room:
    (found,) = room([of], by.name, purchases, terms(by), now)
    return found


def bought(count: int, when: datetime, by: Policy = RENEWED, state: str = "fulfilled", **fields: object) -> Purchase:
    return purchase(1, state, count, when, of=by, **fields)  # type: ignore[arg-type]


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}T12:00Z")


ROOM: dict[str, tuple[Room, int, int]] = {
    "nothing bought leaves all": (left(TEN_A_DAY), 10, 0),
    "what was bought in the window is gone": (left(TEN_A_DAY, bought(7, at(hours=-1))), 3, 7),
    "more than the limit leaves nothing": (left(TEN_A_DAY, bought(12, at(hours=-1))), 0, 12),
    "a window holds what is younger than it": (left(TEN_A_DAY, bought(7, NOW - DAY + SECOND)), 3, 7),
    "and not what is as old": (left(TEN_A_DAY, bought(7, NOW - DAY)), 10, 0),
    "an unknown purchase counts": (left(TEN_A_DAY, bought(7, NOW, state="unknown")), 3, 7),
    "an intended one counts from its reservation": (left(TEN_A_DAY, bought(7, NOW, state="intended")), 3, 7),
    "an expired one counts whole": (left(TEN_A_DAY, bought(7, NOW, state="expired")), 3, 7),
    "a failed one counts whole": (left(TEN_A_DAY, bought(7, NOW, state="failed", failed=7)), 3, 7),  # case 25
    "a rejected one does not count": (left(TEN_A_DAY, bought(7, NOW, state="rejected")), 10, 0),
    "a cancelled one does not count": (left(TEN_A_DAY, bought(7, NOW, state="cancelled")), 10, 0),
    "one surely not bought does not count": (left(TEN_A_DAY, bought(7, NOW, state="not_bought")), 10, 0),
    "another policy's does not count": (left(TEN_A_DAY, bought(7, NOW, by=policy(name="other"))), 10, 0),
    "money is count × price × months": (
        left(FIVE_THOUSAND, bought(3, at(days=-1), by=policy(**MONEY, worker_period=6, worker_auto_renew=False))),
        9,
        3240,
    ),
    "5000 at 180 are 27 workers": (left(FIVE_THOUSAND, by=ONCE), 27, 0),
    "a term of three months costs three": (
        left(FIVE_THOUSAND, by=policy(**MONEY, worker_period=3, worker_auto_renew=False)),
        9,
        0,
    ),
    "renewals count in the month after": (  # case 33
        left(FIVE_THOUSAND, bought(27, day("2026-06-01")), now=day("2026-07-02")),
        0,
        4860,
    ),
    "and already before they fall due, where a worker bought now would be in their window": (  # case 33
        left(FIVE_THOUSAND, bought(27, day("2026-06-01")), now=day("2026-07-01") - SECOND),
        0,
        4860,
    ),
    "without renewal the month after is free": (
        left(FIVE_THOUSAND, bought(27, day("2026-06-01"), by=ONCE), by=ONCE, now=day("2026-07-02")),
        27,
        0,
    ),
    "in February a renewal falls into the window of its own purchase": (
        left(FIVE_THOUSAND, now=day("2026-02-01")),
        13,
        0,
    ),
    "a worker that is gone is not renewed": (
        left(
            FIVE_THOUSAND,
            bought(27, day("2026-06-01"), arrivals=tuple(Arrival(f"i-{n}", NOW, day("2026-06-20")) for n in range(27))),
            now=day("2026-07-02"),
        ),
        27,
        0,
    ),
    "one that is gone only later was renewed": (
        left(
            FIVE_THOUSAND,
            bought(27, day("2026-06-01"), arrivals=tuple(Arrival(f"i-{n}", NOW, day("2026-07-02")) for n in range(27))),
            now=day("2026-07-03"),
        ),
        0,
        4860,
    ),
    "one that never came is not renewed": (
        left(
            FIVE_THOUSAND,
            bought(27, day("2026-06-01"), state="failed", failed=20, arrivals=arrivals(1, 7)),
            now=day("2026-07-02"),
        ),
        20,
        1260,
    ),
    "one that may still come is": (
        left(FIVE_THOUSAND, bought(27, day("2026-06-01"), state="accepted"), now=day("2026-07-02")),
        0,
        4860,
    ),
    "a renewal of more months costs more": (
        left(
            budget(money=5000, per=timedelta(days=100)),
            bought(5, day("2026-06-01"), by=policy(**MONEY, worker_auto_renew_period=6)),
            by=ONCE,
            now=day("2026-07-02"),
        ),
        0,
        6300,
    ),
}


@pytest.mark.parametrize(("found", "workers", "committed"), ROOM.values(), ids=ROOM)
def test_leaves(found: Room, workers: int, committed: int) -> None:
    assert (found.workers, found.committed) == (workers, committed)


CHANGES: dict[str, tuple[Room, datetime | None]] = {
    "never, where nothing was bought": (left(TEN_A_DAY), None),
    "when a purchase leaves the window": (left(TEN_A_DAY, bought(7, at(hours=-1))), at(hours=23)),
    "a full one not before enough has left it": (
        left(TEN_A_DAY, bought(1, at(hours=-20)), bought(10, at(hours=-1))),
        at(hours=23),
    ),
    "a full one not before a renewal to come has fallen due": (
        left(FIVE_THOUSAND, bought(27, day("2026-06-01")), now=day("2026-06-10")),
        day("2026-07-01"),
    ),
    "never, where a single worker costs more": (left(budget(money=100, per=timedelta(days=30))), None),
    "when a renewal comes into its reach": (
        left(budget(money=5000, per=timedelta(days=10)), bought(9, day("2026-06-01")), by=ONCE, now=day("2026-06-20")),
        day("2026-06-21"),
    ),
    "when a renewal falls due": (
        left(budget(money=5000, per=timedelta(days=10)), bought(9, day("2026-06-01")), by=ONCE, now=day("2026-06-28")),
        day("2026-07-01"),
    ),
    "at midnight, as months differ in length": (
        left(FIVE_THOUSAND, now=day("2026-06-01")),
        datetime.fromisoformat("2026-06-02T00:00Z"),
    ),
    "at the time of day at which a renewal of what is bought now would pass another": (
        left(FIVE_THOUSAND, bought(1, day("2026-06-01") + timedelta(hours=3)), now=day("2026-06-09")),
        day("2026-06-09") + timedelta(hours=3),
    ),
}


@pytest.mark.parametrize(("found", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_is_left_changes(found: Room, expected: datetime | None) -> None:
    assert found.changes_at == expected


class TestShared:
    SHARED = Budget(workers=10, per=DAY, shared="live")

    def test_it_counts_what_every_policy_of_it_bought(self) -> None:
        other = policy(name="other", budgets=(self.SHARED,))
        assert left(self.SHARED, bought(7, NOW, by=other)).workers == 3

    def test_and_not_what_its_policies_bought_before_they_shared_it(self) -> None:
        assert left(self.SHARED, bought(7, NOW)).workers == 10


def test_money_of_a_purchase_is_exact() -> None:
    by = policy(price_per_worker_month="180.37", worker_period=3)
    assert money_of(bought(7, NOW, by=by)) == Fraction("3787.77")
    assert money_of(bought(7, NOW, by=by, state="rejected")) == 0
    assert money_of(bought(7, NOW, by=policy())) is None


# --- an independent telling: every billing of every worker, and every window by itself ---


def month_later(at: datetime, months: int) -> datetime:
    year, month = at.year, at.month + months
    while month > 12:
        year, month = year + 1, month - 12
    return at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1]))


def billings(of: Purchase, count: int, until: datetime, money: bool) -> Iterator[tuple[datetime, Fraction]]:
    assert of.sent_at is not None
    if not money:
        yield of.sent_at, Fraction(count)
        return
    assert of.terms.price is not None
    yield of.sent_at, count * of.terms.price * of.terms.period
    months = of.terms.period
    while of.terms.auto_renew and of.terms.auto_renew_period and month_later(of.sent_at, months) < until:
        yield month_later(of.sent_at, months), count * of.terms.price * of.terms.auto_renew_period
        months += of.terms.auto_renew_period


def worst(of: Budget, purchases: Sequence[Purchase], holding: datetime) -> Fraction:
    """The most that any window holds that also holds the instant ``holding``."""
    assert of.per is not None
    end = holding + 2 * of.per
    billed = [bill for one in purchases for bill in billings(one, one.asked, end, of.workers is None)]
    ends = {holding, *(at for at, _ in billed if holding <= at < holding + of.per)}
    return max(sum((cost for at, cost in billed if to - of.per < at <= to), Fraction(0)) for to in ends)


BUDGETS = st.sampled_from(
    [
        budget(10),
        budget(25, per=timedelta(hours=36)),
        budget(money=5000, per=MONTH),
        budget(money="7777.77", per=timedelta(days=90)),
        budget(money=1000, per=timedelta(hours=30)),
    ]
)
POLICIES = st.sampled_from(
    [
        policy(
            price_per_worker_month="180.37",
            worker_period=period,
            worker_auto_renew=renew is not None,
            worker_auto_renew_period=renew,
        )
        for period, renew in [(1, None), (1, 1), (3, 1), (1, 2), (2, None), (12, 12)]
    ]
)
STARTS = st.datetimes(datetime(2026, 1, 1), datetime(2028, 6, 1)).map(lambda start: start.replace(tzinfo=NOW.tzinfo))
HOURS = st.floats(0.01, 24 * 45).map(lambda hours: timedelta(seconds=round(hours * 3600)))


@given(BUDGETS, STARTS, st.lists(st.tuples(HOURS, POLICIES, st.integers(0, 40)), min_size=1, max_size=7))
def test_no_window_with_a_purchase_ever_holds_more_than_its_limit(
    of: Budget, start: datetime, tries: list[tuple[timedelta, Policy, int]]
) -> None:
    limit = Fraction(of.workers) if of.workers is not None else of.money
    assert limit is not None
    history: list[Purchase] = []
    now = start
    for pause, by, wish in tries:
        now += pause
        most = left(of, *history, by=by, now=now).workers
        one_more = purchase(99, "accepted", most + 1, now, of=by)
        assert worst(of, [*history, one_more], now) > limit, "one more would have been within the limit"
        if count := min(wish, most):
            history.append(purchase(len(history) + 1, "accepted", count, now, of=by))
            assert worst(of, history, now) <= limit
    for one in history:
        assert one.sent_at is not None
        assert worst(of, history, one.sent_at) <= limit


@given(BUDGETS, STARTS, st.lists(st.tuples(HOURS, POLICIES, st.integers(1, 9)), max_size=4), POLICIES, st.data())
def test_time_alone_changes_nothing_before_it_is_said_to(
    of: Budget, now: datetime, made: list[tuple[timedelta, Policy, int]], by: Policy, data: st.DataObject
) -> None:
    history = [purchase(n, "accepted", count, now - ago, of=other) for n, (ago, other, count) in enumerate(made, 1)]
    found = left(of, *history, by=by, now=now)
    seconds = int(((found.changes_at or now + 60 * DAY) - now) / SECOND) - 1
    later = now + data.draw(st.integers(0, max(0, seconds))) * SECOND
    assert left(of, *history, by=by, now=later).workers == found.workers


def cents_by_calendar(
    rows: Sequence[tuple[datetime, int, int, int | None, int]], window: tuple[datetime, datetime]
) -> int:
    """What rows of (bought at, workers, months, months of each renewal, cents a worker and month) cost in a window.

    Day by day through the calendar: a term that begins on the 31st ends on the last day of a shorter month.
    """
    total, (after, until) = 0, window
    for bought_at, workers, period, renewal, cents in rows:
        if after < bought_at <= until:
            total += workers * period * cents
        due = bought_at.year * 12 + bought_at.month - 1 + period
        while renewal is not None:
            year, month = divmod(due, 12)
            last = (datetime(year + (month == 11), (month + 1) % 12 + 1, 1) - DAY).day
            renewed = bought_at.replace(year=year, month=month + 1, day=min(bought_at.day, last))
            if renewed > until:
                break
            total += workers * renewal * cents if renewed > after else 0
            due += renewal
    return total


YEAR = st.lists(
    st.tuples(
        st.integers(0, 364 * 24 * 60),
        st.integers(1, 9),
        st.sampled_from([1, 2, 3, 6, 12]),
        st.sampled_from([None, 1, 2, 6]),
        st.integers(1, 99_999),
    ),
    min_size=1,
    max_size=25,
)


@given(YEAR, st.integers(1, 400))
def test_over_a_year_of_rows_the_sum_is_right_to_the_cent(
    year: list[tuple[int, int, int, int | None, int]], days: int
) -> None:
    start = datetime(2026, 1, 31, 12, tzinfo=NOW.tzinfo)
    rows = [(start + minute * timedelta(minutes=1), *row) for minute, *row in sorted(year, key=lambda row: row[0])]
    made = [
        purchase(
            n,
            "accepted",
            workers,
            at,
            of=policy(
                price_per_worker_month=str(Fraction(cents, 100)),
                worker_period=period,
                worker_auto_renew=renewal is not None,
                worker_auto_renew_period=renewal,
            ),
        )
        for n, (at, workers, period, renewal, cents) in enumerate(rows, 1)
    ]
    now, per = start + 365 * DAY, days * DAY
    found = left(
        budget(money=10**9, per=per), *made, by=policy(price_per_worker_month="0.01", worker_auto_renew=False), now=now
    )
    windows = [cents_by_calendar(rows, (end - per, end)) for end in dues(rows, now, now + per)]
    assert found.committed * 100 == max(windows)


def dues(rows: Sequence[tuple[datetime, int, int, int | None, int]], now: datetime, before: datetime) -> set[datetime]:
    """The ends of the windows that hold ``now`` and end with a payment, minute by minute of what may be due."""
    return {now} | {
        at
        for bought, _, period, renewal, _ in rows
        if renewal is not None
        for months in range(period, 40, renewal)
        if now < (at := month_later(bought, months)) < before
    }


def test_a_year_of_monthly_renewals_costs_what_it_should_to_the_cent() -> None:  # case 33
    by = policy(price_per_worker_month="180.37")
    history: list[Purchase] = []
    start = day("2026-03-01")
    for n in range(366):
        now = start + n * DAY
        if count := left(FIVE_THOUSAND, *history, by=by, now=now).workers:
            history.append(purchase(len(history) + 1, "accepted", count, now, of=by))
    assert [(one.asked, one.sent_at) for one in history] == [(27, start)]
    billed = list(billings(history[0], 27, start + 366 * DAY, money=True))
    assert len(billed) == 13
    assert sum(cost for _, cost in billed) == Fraction("63309.87")
    renewed = [left(FIVE_THOUSAND, *history, by=by, now=due + SECOND).committed for due, _ in billed[:-2]]
    assert set(renewed) == {Fraction("4869.99")}
