"""From recorded load to readings: what a check reads at a tick, and from which recorded value on it wants too many.

Given the workers there are, what a check wants never falls as its load rises. So "it wants more than the supply" is
"the recorded value is at least so much", and one comparison of doubles a tick says when. That least value is guessed,
and then settled by the strategy itself, exactly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import lru_cache
from math import inf, isnan, nan, nextafter
from struct import pack, unpack

from autoscaler.model import CheckReading, Gap, GapReason, Reading
from autoscaler.policy import Check, PerWorker, Policy, Schedule, Setpoint, Steps
from autoscaler.simulation.load import Load, exact
from autoscaler.strategy import Fleet, Wish, evaluate

# Steps of one double in which a guess, made from fractions and rounded once, is found.
_NEAR = 4
_FAULT = "a fault of the simulation"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What readings depend on besides the load."""

    serving: int  # workers that share it
    fleet: Fleet | Gap  # what the decision counts of them
    unread: tuple[tuple[str | None, GapReason], ...]  # checks that cannot be read; None: nothing can


class Readings:
    """The readings of one policy's checks over one load."""

    def __init__(self, policy: Policy, load: Load) -> None:
        """Checks without a series are gaps throughout."""
        self.checks: tuple[Check, ...] = tuple(check for check in policy.checks if not isinstance(check, Schedule))
        self.values = tuple(load.series.get(check.name) for check in self.checks)
        self._headroom = policy.headroom
        self.least = lru_cache(maxsize=65536)(self._least)
        self.is_gap = lru_cache(maxsize=65536)(self._is_gap)

    def at(self, tick: int, now: datetime, given: Conditions) -> tuple[CheckReading, ...]:
        """What every check reads at a tick."""
        return tuple(
            self._read(check, nan if values is None else values[tick], now, given)
            for check, values in zip(self.checks, self.values, strict=True)
        )

    def unread(self, given: Mapping[str | None, GapReason]) -> tuple[CheckReading, ...]:
        """What the checks read that cannot be read, and no others."""
        return tuple(
            CheckReading(check.name, Gap(reason, _FAULT))
            for check in self.checks
            if (reason := given.get(None) or given.get(check.name)) is not None
        )

    def _read(self, check: Check, value: float, now: datetime | None, given: Conditions) -> CheckReading:
        unread = dict(given.unread)
        reason = unread.get(None) or unread.get(check.name)
        if reason is not None:
            return CheckReading(check.name, Gap(reason, _FAULT))
        if isnan(value):
            return CheckReading(check.name, Gap(GapReason.NO_DATA, "nothing was recorded"))
        if not isinstance(check, Setpoint):
            return CheckReading(check.name, Reading(exact(value), now))
        if not given.serving:
            return CheckReading(check.name, Gap(GapReason.NO_DATA, "a mean needs a worker that serves"))
        covered = None if check.over is None else Reading(Fraction(given.serving), now)
        return CheckReading(check.name, Reading(exact(value) / given.serving, now), covered)

    def _wish(self, check: Check, value: float, given: Conditions) -> Wish | Gap:
        return evaluate(check, self._read(check, value, None, given), given.fleet, self._headroom)

    def _is_gap(self, number: int, given: Conditions) -> bool:
        """Whether a check is a gap whatever its load."""
        return self.values[number] is None or isinstance(self._wish(self.checks[number], 0.0, given), Gap)

    def _least(self, number: int, more_than: int, given: Conditions) -> float:
        """The least recorded value from which on a check wants more than so many workers; infinite if none does."""
        check = self.checks[number]

        def wants(value: float) -> bool:
            wish = self._wish(check, value, given)
            return isinstance(wish, Wish) and wish.wanted is not None and wish.wanted > more_than

        least = max(0.0, min(float(self._guess(check, more_than, given)), 1e300))
        for _ in range(_NEAR):
            if not wants(least):
                break
            least = nextafter(least, 0.0)
        for _ in range(2 * _NEAR):
            after = nextafter(least, inf)
            if wants(after) and not wants(least):
                return after
            least = after
        return least_double(wants)

    def _guess(self, check: Check, more_than: int, given: Conditions) -> Fraction:
        carried = max(Fraction(0), (more_than - self._headroom.workers) / (1 + self._headroom.ratio))
        if isinstance(check, PerWorker):
            return carried * check.load_per_worker
        if isinstance(given.fleet, Gap) or not given.serving:
            return Fraction(0)
        if isinstance(check, Setpoint):
            covered = given.serving if check.over is not None else max(given.fleet.serving, 1)
            within = check.target * (1 + check.tolerance) * given.serving
            return max(carried * check.target * given.serving / covered, within)
        if not isinstance(check, Steps):
            raise TypeError("a schedule has no reading")
        base = given.fleet.supply_before
        adding = [
            step.at for step in check.steps if base + (step.add or 0) + base * (step.add_percent or 0) / 100 > more_than
        ]
        return min(adding, default=Fraction(10) ** 300)


def least_double(wants: Callable[[float], bool]) -> float:
    """The least double from 0 up that ``wants``, halving all doubles there are; infinite if none does."""
    low, high = 0, _number(1e300)
    if not wants(1e300):
        return inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wants(_double(middle)) else (middle, high)
    return _double(high)


def _number(value: float) -> int:
    # Doubles from 0 up are in the order of their bits.
    (bits,) = unpack("<q", pack("<d", value))
    return int(bits)


def _double(number: int) -> float:
    (value,) = unpack("<d", pack("<q", number))
    return float(value)
