"""From columns of recorded numbers to the load of a policy: the one place where history's workers are taken out of it.

A total is used as it is. A mean says nothing without the workers it was taken over: where the recording counts them
(``<check>.over``, else ``ready``) these are used, else a number that somebody gives.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isinf, isnan, nan
from typing import Final

from autoscaler.policy import Policy, Schedule, Setpoint
from autoscaler.simulation.load import Load, carried

READY: Final = "ready"
"""The column of workers that carried load."""
_OVER: Final = ".over"
MOST_WORKERS: Final = 100_000
"""There at the start, at most: each is an object of the simulated cloud."""


class Unusable(Exception):
    """A recording that lacks something; the parts of a problem."""

    def __init__(self, field: str, what: str, mend: str) -> None:
        super().__init__(f"{field}: {what}; {mend}")
        self.field = field
        self.what = what
        self.mend = mend


def over(check: str) -> str:
    """The column that says how many workers the mean of a check covered."""
    return f"{check}{_OVER}"


def columns_of(policy: Policy) -> dict[str, None]:
    """The columns that a policy's load is made of, in the order of its checks; none of them has to be there."""
    names: dict[str, None] = {}
    for check in policy.checks:
        if not isinstance(check, Schedule):
            names[check.name] = None
            if isinstance(check, Setpoint):
                names[over(check.name)] = None
    return {**names, READY: None}


def load_of(
    policy: Policy,
    columns: "Mapping[str, array[float]]",
    *,
    start_at: datetime,
    step: timedelta,
    ticks: int,
    ready: int | None = None,
    source: str = "",
    assumed: Sequence[str] = (),
) -> Load:
    """The load that ``columns``, of ``ticks`` numbers each, hold for ``policy``. A number that is unknown is NaN.

    ``ready`` is how many workers there were then, where no column says. Raises Unusable.
    """
    said = list(assumed)
    there = columns.get(READY)
    if there is not None:
        require_counts(READY, there)
    series: dict[str, array[float]] = {}
    for check in policy.checks:
        if isinstance(check, Schedule) or check.name not in columns:
            continue
        values = columns[check.name]
        if isinstance(check, Setpoint):
            workers, how = _covered(check.name, columns, ready, ticks)
            said.append(f'"{check.name}" is a mean: its load is the mean × the workers of then, {how}')
            values = array("d", [nan if isinf(value) else value for value in carried(values, workers)])
        series[check.name] = values
        gaps = sum(map(isnan, values))
        if gaps:
            said.append(f'"{check.name}" has no reading at {gaps:,} of {ticks:,} evaluations')
    return Load(start_at, step, ticks, series, there, source, tuple(said))


def ready_at_start(policy: Policy, load: Load, ready: int | None) -> tuple[int, str]:
    """How many workers serve at the start, and who says so."""
    if ready is not None:
        return ready, "as --ready says"
    counted = next((value for value in load.ready or () if not isnan(value)), None)
    if counted is not None:
        return int(counted), "as recorded"
    return policy.limits.minimum, "the policy's minimum; --ready N says otherwise"


def _covered(
    check: str, columns: "Mapping[str, array[float]]", ready: int | None, ticks: int
) -> "tuple[array[float], str]":
    """The workers that a mean covered, tick by tick; none is a gap, as a mean over nobody is no number."""
    for name in (over(check), READY):
        if name in columns:
            require_counts(name, columns[name])
            return array("d", [value or nan for value in columns[name]]), f"as {name} says"
    if ready is None:
        what = "is a mean, and nothing says over how many workers"
        raise Unusable(check, what, f"add a column {over(check)} or {READY}, or give --ready N")
    if not ready:
        raise Unusable(check, "is a mean, and is said to be over no workers", "give --ready the workers of then")
    return array("d", [float(ready)]) * ticks, f"always {ready} (--ready)"


def require_counts(name: str, column: Iterable[float]) -> None:
    """Raises Unusable where a column holds what is no number of workers."""
    for value in column:
        if not isnan(value) and (value < 0 or value != int(value)):
            raise Unusable(name, f"{value:g} is not a number of workers", "write whole numbers from 0 up")
        if value > MOST_WORKERS:
            what = f"{value:g} is more than {MOST_WORKERS:,} workers"
            raise Unusable(name, what, "write how many carried load then, by this policy's instance type alone")
