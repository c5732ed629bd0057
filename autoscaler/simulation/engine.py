"""The simulation itself: the live rules over recorded load, on virtual time.

``evaluations`` is the plain way: every tick is decided. ``simulate`` passes over the ticks at which nothing can change,
and comes to the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from autoscaler.decision import Evaluation, decide, standing
from autoscaler.model import Outcome, Override
from autoscaler.policy import Policy
from autoscaler.simulation.course import Course
from autoscaler.simulation.jumps import jump
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import HONEST, Market
from autoscaler.simulation.result import Simulation
from autoscaler.simulation.spans import Spans

Progress = Callable[[int, int], None]
"""Told the ticks done and the ticks there are, now and then."""

# Ticks after which the ledger lets go of what it keeps for pages and lists, and progress is told.
_NOW_AND_THEN = 1440


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
    end, and are numbered anew from 1 as they start. ``jumping`` passes over the ticks at which nothing can change; the
    result is the same without, and slower. Equal arguments give equal results.

    Raises ValueError for a negative ``ready``.
    """
    policy, course = _begin(policy, load, market, ready, overrides)
    spans = Spans(load)

    def told(tick: int) -> None:
        if progress is not None:
            progress(tick, load.ticks)

    def again(tick: int) -> Evaluation:
        return next(islice(evaluations(policy, load, market, ready=ready, overrides=overrides), tick, None))

    evaluate: Callable[[int], Evaluation] = again
    if jumping:
        evaluate = jump(course, spans, told)
    else:
        for tick, evaluation in enumerate(_each_tick(course)):
            spans.add(tick, tick + 1, evaluation.decision.reason, evaluation.decision.add)
            if tick % _NOW_AND_THEN == 0:
                told(tick)
    told(load.ticks)
    return Simulation(
        policy=policy,
        load=load,
        market=market,
        ready=ready,
        overrides=course.overrides,
        spans=spans,
        purchases=tuple(reversed(course.ledger.purchases(limit=None))),
        tenures=course.cloud.tenures(),
        levels=course.cloud.levels(),
        _evaluate=evaluate,
    )


def evaluations(
    policy: Policy, load: Load, market: Market = HONEST, *, ready: int, overrides: Sequence[Override] = ()
) -> Iterator[Evaluation]:
    """Every evaluation of a simulation, one for each tick, as the ledger is told of it; see ``simulate``."""
    _, course = _begin(policy, load, market, ready, overrides)
    return _each_tick(course)


def _begin(
    policy: Policy, load: Load, market: Market, ready: int, overrides: Sequence[Override]
) -> tuple[Policy, Course]:
    if ready < 0:
        raise ValueError(f"{ready} workers cannot be ready at the start: write 0 or more")
    live = policy.model_copy(update={"dry_run": False, "evaluate_every": load.step})
    return live, Course(live, load, market, ready, overrides)


def _each_tick(course: Course) -> Iterator[Evaluation]:
    for tick in range(course.load.ticks):
        course.turn_to(tick)
        course.settle()
        facts = course.facts()
        _, fleet = standing(facts)
        readings = course.readings.at(tick, course.now, course.conditions(fleet))
        facts = replace(facts, readings=readings)
        evaluation = Evaluation(facts, decide(facts))
        if evaluation.decision.outcome is Outcome.SCALE_OUT:
            evaluation = course.buy(facts)
        else:
            course.ledger.record([evaluation])
        if tick % _NOW_AND_THEN == 0:
            course.ledger.prune(course.now, timedelta(0))
        yield evaluation


__all__ = ["Progress", "evaluations", "simulate"]
