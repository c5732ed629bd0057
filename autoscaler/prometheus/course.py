"""Readings over a stretch of time, out of range queries: at each instant what an evaluation then would have read.

The answer of a range query is taken apart into those of its instants, and each is judged as the answer of an instant
is: ages, several series and all. So history has the gaps that the daemon would have seen.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import nan
from typing import Any, Final

from autoscaler.model import Gap, GapReason
from autoscaler.prometheus.question import Plan

MOST_POINTS: Final = 11_000
"""Points of a series in one answer; Prometheus refuses to give more."""


@dataclass(frozen=True, slots=True)
class Course:
    """What one question came to at each of several instants, a step apart."""

    values: "array[float]"  # NaN is a gap
    gaps: Mapping[GapReason, int]  # how many there are, by reason


def pages(ticks: int) -> Iterator[range]:
    """The instants of each request, in as few requests as Prometheus lets them be."""
    for first in range(0, ticks, MOST_POINTS):
        yield range(first, min(first + MOST_POINTS, ticks))


def read_page(plan: Plan, result: Sequence[Any], start_at: datetime, step: timedelta, page: range) -> Course:
    """The course over one page. ``result`` is the ``data.result`` of its answer, a matrix.

    Raises KeyError, IndexError, TypeError, ValueError, OverflowError: it is none.
    """
    first, length = start_at.timestamp(), step.total_seconds()
    vectors: list[list[Any]] = [[] for _ in page]
    for row in result:
        for kind, found in (("values", "value"), ("histograms", "histogram")):
            for at, sample in row.get(kind, ()):
                tick = round((at - first) / length)
                if tick not in page:
                    raise ValueError("an instant that was not asked for")
                vectors[tick - page.start].append({"metric": row["metric"], found: (at, sample)})
    values, gaps = array("d"), Counter[GapReason]()
    for tick, vector in zip(page, vectors, strict=True):
        reading = plan.reading(vector, start_at + tick * step)
        if isinstance(reading, Gap):
            gaps[reading.reason] += 1
            values.append(nan)
        else:
            values.append(float(reading.value))
    return Course(values, gaps)


def joined(courses: Sequence[Course]) -> Course:
    """One course out of those of its pages, in their order."""
    values, gaps = array("d"), Counter[GapReason]()
    for course in courses:
        values.extend(course.values)
        gaps.update(course.gaps)
    return Course(values, gaps)
