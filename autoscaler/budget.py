"""Budgets: the most workers, or money, that a policy or several together commit in a rolling window."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from fractions import Fraction
from itertools import accumulate
from math import floor

from autoscaler.model import Purchase, Terms
from autoscaler.months import add_months
from autoscaler.policy import Budget
from autoscaler.purchase import OPEN, committed


@dataclass(frozen=True, slots=True)
class Room:
    """What one budget leaves at an instant."""

    budget: Budget
    workers: int  # workers that may still be bought
    committed: Fraction  # workers or money already committed in the window that leaves least
    changes_at: datetime | None  # when time alone may change it


def room(
    budgets: Sequence[Budget], policy: str, purchases: Sequence[Purchase], terms: Terms, now: datetime
) -> list[Room]:
    """What each budget leaves for workers that ``policy`` buys at ``now`` on ``terms``.

    A budget bounds every rolling window of its length that holds a purchase, also those that reach into the future: a
    worker bought now counts together with a renewal already due in the same window. Money is count × price × months at
    the purchase, and again at each renewal while the worker is there. A window that holds renewals alone is not
    bounded: there is no purchase left to refuse.
    """
    return [_room(budget, policy, purchases, terms, now) for budget in budgets]


def _room(budget: Budget, policy: str, purchases: Sequence[Purchase], terms: Terms, now: datetime) -> Room:
    limit = Fraction(budget.workers) if budget.workers is not None else budget.money
    if budget.per is None or limit is None:
        raise ValueError("a budget needs a window, and workers or money")
    per, of_money = budget.per, budget.workers is None
    held = sorted(
        commitment
        for purchase in purchases
        if _counts(budget, policy, purchase)
        for commitment in _commitments(purchase, of_money, now - per, now + 2 * per)
    )
    times = [at for at, _ in held]
    sums = [Fraction(0), *accumulate(amount for _, amount in held)]
    one = [(now, Fraction(1))]
    if of_money:
        one = [
            (at, (terms.price or Fraction(0)) * months) for at, months in _billings(terms, now, now - per, now + per)
        ]
    tightest: Room | None = None
    # What a window holds grows only where something enters it: windows that end at such an instant are enough.
    for end in sorted({now, *times[bisect_right(times, now) : bisect_left(times, now + per)], *(at for at, _ in one)}):
        taken = sums[bisect_right(times, end)] - sums[bisect_right(times, end - per)]
        each = sum(amount for at, amount in one if at <= end)
        left = max(0, (limit - taken) // each) if each else floor(limit)
        if tightest is None or (left, -taken) < (tightest.workers, -tightest.committed):
            tightest = Room(budget, left, taken, None)
    assert tightest is not None
    if not tightest.workers:
        least = one[0][1]
        if least > limit:
            return tightest  # there is no room for one, ever
        freed_at = _freed_at(limit - least, per, times, sums, now)
        if freed_at is not None:
            return replace(tightest, changes_at=freed_at)
    edges = [instant for at in times for instant in (at - per, at, at + per)]
    changes = [instant for instant in edges if instant > now]
    if of_money and terms.auto_renew:
        # The renewals of a worker bought later are due later, to the time of day, and months differ in length: they
        # pass a commitment at its time of day, and the end of the window at midnight.
        changes.append(_next_time_of_day({time.min, *(instant.time() for instant in edges)}, now))
    return replace(tightest, changes_at=min(changes, default=None))


def _freed_at(
    most: Fraction, per: timedelta, times: Sequence[datetime], sums: Sequence[Fraction], now: datetime
) -> datetime | None:
    """Until when time alone leaves no window that holds ``now`` with ``most`` or less; None: one has that now.

    A window that ends at a commitment still to come holds what it holds until then; the one that ends now lets go of
    its commitments, the oldest first. ``sums`` are those of the commitments at ``times``.
    """
    gone, here = bisect_right(times, now - per), bisect_right(times, now)
    upcoming = range(here, bisect_left(times, now + per))
    full = [times[n] for n in upcoming if sums[n + 1] - sums[bisect_right(times, times[n] - per)] > most]
    if sums[here] - sums[gone] > most:
        full.append(next(times[n] + per for n in range(gone, here) if sums[here] - sums[n + 1] <= most))
    return max(full, default=None)


def _next_time_of_day(times: set[time], now: datetime) -> datetime:
    """The next instant after ``now`` that is at one of these times of the day."""
    today = [at for at in times if at > now.time()]
    upcoming = datetime.combine(now.date(), min(today or times), now.tzinfo)
    return upcoming if today else upcoming + timedelta(days=1)


def _counts(budget: Budget, policy: str, purchase: Purchase) -> bool:
    if budget.shared is not None:
        return budget.shared in purchase.shared_budgets
    return purchase.policy == policy


def _commitments(
    purchase: Purchase, of_money: bool, after: datetime, before: datetime
) -> Iterator[tuple[datetime, Fraction]]:
    """The instants in (after, before) at which a purchase commits workers or money, and how much."""
    count, price = committed(purchase), purchase.terms.price
    bought_at = purchase.sent_at or purchase.reserved_at
    if not of_money:
        if count and after < bought_at < before:
            yield bought_at, Fraction(count)
    elif count and price is not None:
        for at, months in _billings(purchase.terms, bought_at, after, before):
            yield at, price * (months * (count if at == bought_at else _renewing(purchase, at)))


def _renewing(purchase: Purchase, at: datetime) -> int:
    """The workers of a purchase that are renewed at an instant: those that are there, or may still come."""
    there = sum(arrival.gone_at is None or arrival.gone_at > at for arrival in purchase.arrivals)
    return there + (purchase.outstanding if purchase.state in OPEN else 0)


def _billings(terms: Terms, bought_at: datetime, after: datetime, before: datetime) -> Iterator[tuple[datetime, int]]:
    """The instants in (after, before) at which a worker's months are billed, and how many months at each."""
    if after < bought_at < before:
        yield bought_at, terms.period
    if not terms.auto_renew or not terms.auto_renew_period:
        return
    elapsed = (after.year - bought_at.year) * 12 + after.month - bought_at.month
    skipped = max(0, (elapsed - 1 - terms.period) // terms.auto_renew_period)
    months = terms.period + skipped * terms.auto_renew_period
    while (renewed_at := add_months(bought_at, months)) < before:
        if renewed_at > after:
            yield renewed_at, terms.auto_renew_period
        months += terms.auto_renew_period


def payments(purchase: Purchase, before: datetime) -> Iterator[tuple[datetime, Fraction]]:
    """What a purchase commits until an instant, and when: at the purchase, then at each renewal; no price, nothing."""
    yield from _commitments(purchase, True, purchase.reserved_at - timedelta(microseconds=1), before)


def money_of(purchase: Purchase) -> Fraction | None:
    """What a purchase commits at once: count × price × months; None: its policy names no price."""
    price = purchase.terms.price
    return None if price is None else committed(purchase) * price * purchase.terms.period
