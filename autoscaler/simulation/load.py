"""Recorded load: what the checks of one policy would have read, on a regular grid of evaluations.

History was made with the workers of then. What is kept here is what does not depend on them: totals as they were read,
and a mean per worker multiplied by the workers it covered then (see ``carried``). The simulation divides that again by
the workers there are in its own course.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import isinf, isnan

# Significant digits that every double carries through text and back. A product of two decimals is rounded to them, so
# that 0.65 × 13 is the 8.45 it was read as, and not the nearest double's 8.450000000000001.
_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Load:
    """The recorded load of one policy. A tick is one evaluation; tick n is at ``start_at + n × step``.

    Doubles lose nothing here: the exact number of a value is the shortest decimal text that means it, see ``exact``.
    """

    start_at: datetime  # of tick 0, aware
    step: timedelta  # between ticks, and so between evaluations: it takes the place of the policy's evaluate_every
    ticks: int
    series: "Mapping[str, array[float]]"
    """By check: per_worker the total read; setpoint the mean × the workers it covered (``carried``); steps the value
    read. NaN is a gap, ``no_data``. A check that has no series is a gap at every tick."""
    ready: "array[float] | None" = (
        None  # workers that carried load then, NaN where unknown: to compare, never to decide
    )
    source: str = ""  # where it was recorded, one clause: "load.csv", "https://prometheus.example.com, 30d to …"
    assumed: tuple[str, ...] = ()  # a sentence for each thing that the recording does not say

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be a load, in words for whoever recorded it."""
        if self.ticks < 1:
            raise ValueError("the load has no ticks: record one value at least")
        if self.start_at.tzinfo is None:
            raise ValueError("the start of the load names no time zone")
        if self.step <= timedelta(0):
            raise ValueError("the time between ticks must be more than nothing")
        for name, values in {**self.series, **({} if self.ready is None else {"ready": self.ready})}.items():
            if len(values) != self.ticks:
                raise ValueError(f'"{name}" has {len(values)} values for {self.ticks} ticks')
            if any(map(isinf, values)):
                raise ValueError(f'"{name}" holds an infinite value: write NaN where there is a gap')

    @property
    def end_at(self) -> datetime:
        """When the last tick's time is over: one step after it."""
        return self.start_at + self.ticks * self.step

    def at(self, tick: int) -> datetime:
        """The instant of a tick."""
        return self.start_at + tick * self.step

    def tick(self, instant: datetime) -> int:
        """The tick in force at an instant: the newest up to it. Raises ValueError outside of the load."""
        tick = (instant - self.start_at) // self.step
        if not 0 <= tick < self.ticks:
            raise ValueError(f"{instant:%Y-%m-%d %H:%M:%SZ} is outside of the load")
        return tick


def carried(mean: Sequence[float], over: Sequence[float]) -> "array[float]":
    """The load behind a mean per worker, tick by tick: the mean × the workers it covered. A gap in either is a gap."""
    return array("d", [value if isnan(value) else float(f"{value:.{_DIGITS}g}") for value in map(_times, mean, over)])


def _times(mean: float, over: float) -> float:
    return mean * over


def exact(value: float) -> Fraction:
    """The number that a recorded value means: that of its shortest decimal text, not the double's own."""
    return Fraction(int(value)) if value.is_integer() else Fraction(repr(value))
