"""Readings over a stretch of time, out of range queries: at each instant what an evaluation then would have read.

The same plan is asked as for a reading of now, and each instant is judged as the answer of an instant is: ages, several
series and all. So history has the gaps that the daemon would have seen. Value and ages are asked one by one here, as
over a range their union takes Prometheus much longer than both.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite, isnan, nan
from typing import Any, Final

from autoscaler.model import GapReason
from autoscaler.prometheus.question import Source

MOST_POINTS: Final = 2_000
"""Points of a series in one answer. Prometheus gives up to 11,000, but takes time by their square for ``timestamp``:
a month of minutes in such pages took 2.42 four times as long."""

_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Course:
    """What one question came to at each of several instants, a step apart."""

    values: "array[float]"  # NaN is a gap
    gaps: Mapping[GapReason, int]  # how many there are, by reason


@dataclass(frozen=True, slots=True)
class Page:
    """The instants of one request."""

    start_at: datetime
    step: timedelta
    ticks: int

    @property
    def end_at(self) -> datetime:
        """Its last instant."""
        return self.start_at + (self.ticks - 1) * self.step

    def tick(self, seconds: float) -> int:
        """The number of the instant at these unix seconds. ValueError: it was not asked for."""
        tick = round((seconds - self.start_at.timestamp()) / self.step.total_seconds())
        if not 0 <= tick < self.ticks:
            raise ValueError("an instant that was not asked for")
        return tick


def pages(start_at: datetime, step: timedelta, ticks: int) -> Iterator[Page]:
    """The instants, in as few requests as Prometheus lets them be."""
    for first in range(0, ticks, MOST_POINTS):
        yield Page(start_at + first * step, step, min(MOST_POINTS, ticks - first))


def read_page(
    page: Page,
    value: Sequence[Any],
    sources: Sequence[Source],
    newest: Sequence[Sequence[Any]],
    max_age: timedelta | None,
) -> Course:
    """The course over one page, out of matrices: the query's own, and the newest sample's time of each source.

    Raises KeyError, IndexError, TypeError, ValueError, OverflowError: they are none.
    """
    values, several, nothing = array("d", [nan]) * page.ticks, bytearray(page.ticks), bytearray(page.ticks)
    for row in value:
        for at, text in row.get("values", ()):
            tick = page.tick(at)
            values[tick] = float(text)
            several[tick] = min(several[tick] + 1, 2)
        for at, _ in row.get("histograms", ()):
            several[page.tick(at)] += 1
    stale = bytearray(page.ticks)
    for source, found in zip(sources, newest, strict=True):
        _judge_age(page, source, found, max_age, nothing, stale)
    gaps = Counter[GapReason]()
    for tick in range(page.ticks):
        gap = _gap(values[tick], several[tick], nothing[tick], stale[tick])
        if gap is not None:
            gaps[gap] += 1
            values[tick] = nan
    return Course(values, gaps)


def joined(courses: Sequence[Course]) -> Course:
    """One course out of those of its pages, in their order."""
    values, gaps = array("d"), Counter[GapReason]()
    for course in courses:
        values.extend(course.values)
        gaps.update(course.gaps)
    return Course(values, gaps)


def _judge_age(
    page: Page,
    source: Source,
    found: Sequence[Any],
    max_age: timedelta | None,
    nothing: bytearray,
    stale: bytearray,
) -> None:
    """Mark the instants at which a source has no samples, or its newest is too old; by milliseconds, as Prometheus."""
    sampled = array("d", [nan]) * page.ticks
    for row in found:
        for at, text in row["values"]:
            sampled[page.tick(at)] = float(text)
    offset = source.offset / _MILLISECOND
    window = None if source.window is None else source.window / _MILLISECOND
    oldest = None if max_age is None else max_age / _MILLISECOND
    start, step = page.start_at.timestamp() * 1000, page.step / _MILLISECOND
    for tick, seconds in enumerate(sampled):
        if isnan(seconds):
            nothing[tick] = 1
            continue
        now, at = start + tick * step, round(seconds * 1000)
        if window is not None and round(now - offset) - at > window:
            nothing[tick] = 1
        elif oldest is not None and round(min(now - offset, now)) - at > oldest:
            stale[tick] = 1


def _gap(value: float, several: int, nothing: int, stale: int) -> GapReason | None:
    if nothing:
        return GapReason.NO_DATA
    if stale:
        return GapReason.STALE
    if several != 1:
        return GapReason.SEVERAL_SERIES if several else GapReason.NO_DATA
    if isfinite(value):
        return None
    return GapReason.NOT_A_NUMBER if isnan(value) else GapReason.INFINITE
