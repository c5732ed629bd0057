"""Strategies: from what was read for a check, and the workers there are, to the number of workers wanted.

A strategy is pure and wants a number or nothing. It never wants "what is there": such an answer would feed on its own
headroom until ``maximum``. Numbers stay fractions; the one ``ceil`` is the decision's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from autoscaler.model import CheckReading, Gap, GapReason, Reading
from autoscaler.policy import Check, Headroom, PerWorker, Schedule, Setpoint, Steps, Window

# One surviving site at 95 % is not the fleet: a mean over fewer of the serving workers than this is a gap.
LEAST_COVERAGE = Fraction(8, 10)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers that strategies reckon with."""

    serving: int  # carry load now
    supply: int  # serving, in flight and lately lost ones
    supply_before: int  # supply as it was before the oldest purchase still in flight; without one, supply


@dataclass(frozen=True, slots=True)
class Wish:
    """What one check wants."""

    check: str
    wanted: Fraction | None  # workers; None: nothing
    says: str  # how it came about, in the numbers read


def evaluate(check: Check, reading: CheckReading, fleet: Fleet | Gap, headroom: Headroom) -> Wish | Gap:
    """Apply a check's strategy to its reading; a gap where the reading, or what it must be related to, is none.

    ``fleet`` is a gap while capacity is one; a strategy that does not relate to it (``per_worker``) goes on.
    """
    if isinstance(reading.load, Gap):
        return reading.load
    value = reading.load.value
    match check:
        case PerWorker():
            return _per_worker(check, value, headroom)
        case Setpoint():
            return fleet if isinstance(fleet, Gap) else _setpoint(check, value, reading.over, fleet, headroom)
        case Steps():
            return fleet if isinstance(fleet, Gap) else _steps(check, value, fleet)
        case Schedule():
            raise TypeError("a schedule has no reading; see open_windows()")


def _per_worker(check: PerWorker, value: Fraction, headroom: Headroom) -> Wish:
    wanted = max(value, Fraction(0)) / check.load_per_worker
    says = f"{number(value)} at {number(check.load_per_worker)} each"
    return Wish(check.name, _with_headroom(wanted, headroom), says + _headroom_says(wanted, headroom))


def _setpoint(
    check: Setpoint, value: Fraction, over: Reading | Gap | None, fleet: Fleet, headroom: Headroom
) -> Wish | Gap:
    if isinstance(over, Gap):
        return over
    covered = Fraction(fleet.serving) if over is None else over.value
    if covered < LEAST_COVERAGE * fleet.serving:
        return Gap(GapReason.PARTIAL_COVERAGE, f"the mean covers {number(covered)} of {fleet.serving} serving workers")
    if value <= check.target * (1 + check.tolerance):
        return Wish(check.name, None, f"{number(value)} is within target {number(check.target)}")
    wanted = value * covered / check.target
    says = f"{number(value)} over {number(covered)} workers, target {number(check.target)}"
    return Wish(check.name, _with_headroom(wanted, headroom), says + _headroom_says(wanted, headroom))


def _steps(check: Steps, value: Fraction, fleet: Fleet) -> Wish:
    # The largest of the steps reached, not the last: a percentage of few workers may be less than a lower step's count,
    # and more load must never want fewer.
    base = fleet.supply_before
    reached = [
        (Fraction(step.add or 0) if step.add_percent is None else base * step.add_percent / 100, step)
        for step in check.steps
        if value >= step.at
    ]
    if not reached:
        return Wish(check.name, None, f"{number(value)} reaches no step")
    added, step = max(reached, key=lambda pair: pair[0])
    what = number(added) if step.add_percent is None else f"{number(step.add_percent)}%"
    return Wish(check.name, base + added, f"{number(value)} reaches step {number(step.at)}: {base} + {what}")


def _with_headroom(wanted: Fraction, headroom: Headroom) -> Fraction:
    # No load wants no workers; headroom on nothing would buy for an empty fleet.
    return wanted * (1 + headroom.ratio) + headroom.workers if wanted > 0 else wanted


def _headroom_says(wanted: Fraction, headroom: Headroom) -> str:
    if wanted <= 0:
        return ""
    ratio = f" + {number(headroom.ratio * 100)}%" if headroom.ratio else ""
    workers = f" + {headroom.workers}" if headroom.workers else ""
    return ratio + workers


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of a schedule's window."""

    window: Window
    opens_at: datetime  # the cron instant less the lead
    closes_at: datetime


def open_windows(check: Schedule, now: datetime) -> tuple[Opening, ...]:
    """The windows that are open at ``now``: from their cron instant less ``lead`` until ``lasts`` after it."""
    return tuple(opening for opening in _latest_openings(check, now) if now < opening.closes_at)


def next_opening_at(check: Schedule, now: datetime) -> datetime | None:
    """The first instant after ``now`` at which a window of the schedule opens."""
    instants = []
    for window in check.windows:
        _, upcoming = _around(window.cron, window.timezone, _minute(now + window.lead))
        if upcoming is not None:
            instants.append(upcoming - window.lead)
    return min(instants, default=None)


def _latest_openings(check: Schedule, now: datetime) -> Iterator[Opening]:
    for window in check.windows:
        begun, _ = _around(window.cron, window.timezone, _minute(now + window.lead))
        if begun is not None:
            yield Opening(window, begun - window.lead, begun + window.lasts)


def _minute(at: datetime) -> datetime:
    # Cron knows whole minutes only, so all instants of one lie between the same two occurrences.
    return at.replace(second=0, microsecond=0)


@lru_cache(maxsize=4096)
def _around(cron: str, timezone: str, minute: datetime) -> tuple[datetime | None, datetime | None]:
    """The newest instant up to ``minute``, and the first one after it, that a cron expression means."""
    # cronsim, going back, leaves out the instant it starts from; a microsecond more lets it count.
    past = _occurrences(cron, timezone, minute + timedelta(microseconds=1), reverse=True)
    newest = next((at for at in past if at <= minute), None)
    # In the hour that comes twice cronsim, going back, misses some; and going on, it starts with some of the first.
    for at in _occurrences(cron, timezone, newest or minute, reverse=False):
        if at > minute:
            return newest, at
        newest = at
    return newest, None


def _occurrences(cron: str, timezone: str, start: datetime, *, reverse: bool) -> Iterator[datetime]:
    return (at.astimezone(UTC) for at in CronSim(cron, start.astimezone(ZoneInfo(timezone)), reverse=reverse))


def number(value: Fraction | int) -> str:
    """A number for people: whole if it is whole, else to four significant decimals."""
    exact = Fraction(value)
    if exact.denominator == 1:
        return str(exact.numerator)
    return f"{float(exact):.4f}".rstrip("0").rstrip(".") if abs(exact) >= 1 else f"{float(exact):.4g}"
