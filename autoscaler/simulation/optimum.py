"""The hindsight optimum: the fewest worker terms that would have carried a load without ever being short.

Buying with perfect knowledge and without delay: workers are bought for one term whenever that is best, and none is
renewed. With y(t) the workers bought up to t, those there at t are y(t) − y(t − term). The linear program of
y(t) − y(t − term) ≥ need(t), y(t) ≥ y(t − 1), and least y at the end, has an integral solution, since every worker's
term is an interval: its matrix is that of a network. Levels of load taken one by one would overstate it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise

from autoscaler.months import add_months
from autoscaler.simulation.figures import needed
from autoscaler.simulation.result import Simulation

GRID = timedelta(hours=1)
"""Workers are bought at the beginning of an interval this long, for the largest need within it."""


class OptimumUnavailable(Exception):
    """The optimum cannot be computed; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Optimum:
    """The cheapest purchases that would never have been short."""

    grid: timedelta  # between the instants at which it may buy
    bought: tuple[tuple[datetime, int], ...]  # when, and how many workers for a term each
    workers: int  # all of them: worker terms
    money: Fraction | None  # what they cost; None: the policy names no price


def optimum(simulation: Simulation, grid: timedelta = GRID) -> Optimum:
    """The optimum for the load of a simulation, with the workers there at its start until their own terms end.

    ``grid`` is taken as a whole number of steps, at least one. Raises OptimumUnavailable without the solver.
    """
    policy, load = simulation.policy, simulation.load
    size = max(1, grid // load.step)
    grid = size * load.step
    needs = needed(policy, load)
    starts = [load.at(tick) for tick in range(0, load.ticks, size)]
    lacking = [max(needs[tick : tick + size]) for tick in range(0, load.ticks, size)]
    for tenure in simulation.tenures:
        if tenure.purchase_id is None:
            for number, start in enumerate(starts):
                if tenure.ends_at is not None and start + grid > tenure.ends_at:
                    break
                lacking[number] -= 1
    months = policy.worker.worker_period
    # A term bought at a start is over for every interval that begins at its end or later.
    ended = [bisect_right(starts, start, key=lambda began: add_months(began, months)) for start in starts]
    bought = _solve(lacking, ended)
    price = policy.price_per_worker_month
    total = sum(bought)
    return Optimum(
        grid=grid,
        bought=tuple((start, workers) for start, workers in zip(starts, bought, strict=True) if workers),
        workers=total,
        money=None if price is None else price * months * total,
    )


def _solve(lacking: Sequence[int], ended: Sequence[int]) -> list[int]:
    """How many to buy at each instant so that ``lacking`` is there; of the first ``ended`` ones the term is over."""
    try:
        import highspy
    except ImportError:
        raise OptimumUnavailable(
            "the optimum needs the solver highspy, which is not installed: pip install 'autoscaler[optimum]'"
        ) from None
    if max(lacking, default=0) <= 0:
        return [0] * len(lacking)

    class Quiet(highspy.Highs):
        """Says nothing on the standard output, where the answers of commands go; its callbacks would, once enabled."""

        def enableCallbacks(self) -> None:
            self.silent()

    solver = Quiet()  # type: ignore[no-untyped-call]  # it comes without types
    for number in range(len(lacking)):
        solver.addVar(0, highspy.kHighsInf)
        if number:
            solver.addRow(0, highspy.kHighsInf, 2, [number - 1, number], [-1.0, 1.0])
        if lacking[number] > 0:
            over = ended[number]
            columns = [over - 1, number] if over else [number]
            solver.addRow(lacking[number], highspy.kHighsInf, len(columns), columns, [-1.0, 1.0][-len(columns) :])
    solver.changeColCost(len(lacking) - 1, 1.0)
    solver.run()
    if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise OptimumUnavailable(f"the solver found no optimum: {solver.modelStatusToString(solver.getModelStatus())}")
    upto = [round(value) for value in solver.getSolution().col_value]
    return [upto[0], *(after - before for before, after in pairwise(upto))]
