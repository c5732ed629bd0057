"""The simulation itself: the live rules over recorded load, on virtual time."""

from collections.abc import Callable, Sequence

from autoscaler.model import Override
from autoscaler.policy import Policy
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import HONEST, Market
from autoscaler.simulation.result import Simulation

Progress = Callable[[int, int], None]
"""Told the ticks done and the ticks there are, now and then."""


def simulate(
    policy: Policy,
    load: Load,
    market: Market = HONEST,
    *,
    ready: int,
    overrides: Sequence[Override] = (),
    jumping: bool = True,
    progress: Progress | None = None,
) -> Simulation:
    """What ``policy`` would have bought over ``load`` from ``market``, with ``ready`` serving workers at the start.

    The policy is taken as live and is evaluated at each tick of the load. ``overrides`` hold from their start to their
    end, and are numbered anew from 1 in the order given. ``jumping`` passes over the ticks at which nothing can change;
    the result is the same without, and slower. Equal arguments give equal results.

    Raises ValueError for a negative ``ready``.
    """
    raise NotImplementedError


__all__ = ["Progress", "simulate"]
