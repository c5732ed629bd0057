"""A simulation as a course over time: at each evaluation what load needed, what there was, and what was decided."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from autoscaler.facts import Reason
from autoscaler.simulation.figures import needed
from autoscaler.simulation.result import Level, Simulation


@dataclass(frozen=True, slots=True)
class Moment:
    """One evaluation of a simulation."""

    at: datetime
    needed: int  # workers that the load takes, without headroom
    level: Level  # the workers there truly are
    reason: Reason
    add: int  # workers bought


def moments(simulation: Simulation) -> Iterator[Moment]:
    """Every evaluation, oldest first."""
    load, levels = simulation.load, iter(simulation.levels)
    takes = needed(simulation.policy, load)
    level, coming = next(levels), next(levels, None)
    tick = 0
    for span in simulation.spans:
        for _ in range(span.ticks):
            at = load.at(tick)
            while coming is not None and coming.at <= at:
                level, coming = coming, next(levels, None)
            yield Moment(at, takes[tick], level, span.reason, span.add)
            tick += 1
