"""Running policy tests: a description becomes a load and a market, and what the simulation decides is compared."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from math import nan

from autoscaler.decision import Decision
from autoscaler.duration import format_duration
from autoscaler.model import GapReason, Override, OverrideKind
from autoscaler.purchase import NOTHING_BOUGHT
from autoscaler.simulation.description import Description, Expectation, FaultRow
from autoscaler.simulation.engine import simulate
from autoscaler.simulation.grid import READY, load_of
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import (
    CapacityFault,
    ClusterFault,
    Fault,
    JoinDelay,
    Market,
    PurchaseFault,
    ReadingFault,
    WorkerFault,
)
from autoscaler.simulation.notation import Value
from autoscaler.simulation.policy_tests import PolicyTest
from autoscaler.simulation.result import Simulation


@dataclass(frozen=True, slots=True)
class Failure:
    """One expectation that was not met."""

    file: str
    line: int
    at: timedelta | None  # of the evaluation, from the start; None: of the course as a whole
    expected: str
    got: str
    sentence: str  # of the decision; of the purchases, where the course as a whole is meant


@dataclass(frozen=True, slots=True)
class Tested:
    """What one policy test came to."""

    test: PolicyTest
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        """Whether every expectation was met."""
        return not self.failures


def run_test(test: PolicyTest) -> Tested:
    """Simulate what a test describes, and compare every expectation."""
    description = test.description
    simulation = simulate(
        test.policy,
        _load(test),
        _market(test),
        ready=description.ready,
        overrides=tuple(_overrides(description)),
    )
    return Tested(test, tuple(_failures(test, simulation)))


def _load(test: PolicyTest) -> Load:
    columns = {
        name: array("d", [nan if isinstance(value, GapReason) else float(value) for value in values])
        for name, values in test.description.series.items()
    }
    for column in columns.values():
        column.extend([nan] * (test.ticks - len(column)))
    columns[READY] = array("d", [float(test.description.ready)]) * test.ticks
    return load_of(
        test.policy,
        columns,
        start_at=test.description.start,
        step=test.policy.evaluate_every,
        ticks=test.ticks,
        source=test.file,
    )


def _market(test: PolicyTest) -> Market:
    description, start = test.description, test.description.start
    end = start + test.ticks * test.policy.evaluate_every
    faults = [_fault(row, start, end) for row in description.faults]
    for name, values in description.series.items():
        faults += _named_gaps(name, values, start, test.policy.evaluate_every)
    return Market(
        join=None if description.join is None else JoinDelay.fixed(description.join),
        node_quota=description.node_quota,
        standing_ends=tuple(start + length for length in description.lapsing),
        faults=tuple(faults),
    )


def _fault(row: FaultRow, start: datetime, end: datetime) -> Fault:
    at = start + row.at
    until = end if row.lasts is None else at + row.lasts
    if row.purchase is not None:
        return PurchaseFault(at, row.purchase, row.arrive, row.refusal)
    if row.nodes is not None:
        return CapacityFault(at, until, row.nodes)
    if row.lost is not None:
        return WorkerFault(at, row.lost, None if row.lasts is None else until)
    if row.cluster is not None:
        return ClusterFault(at, until, row.cluster)
    assert row.gap is not None  # the schema lets nothing else through
    return ReadingFault(at, until, row.check, row.gap)


def _named_gaps(name: str, values: Sequence[Value], start: datetime, step: timedelta) -> Iterator[ReadingFault]:
    """A fault for each stretch in which a series says why it has no value; the rest of its gaps is ``no_data``."""
    tick = 0
    for reason, stretch in groupby(values, key=lambda value: value if isinstance(value, GapReason) else None):
        length = len(list(stretch))
        if isinstance(reason, GapReason) and reason is not GapReason.NO_DATA:
            yield ReadingFault(start + tick * step, start + (tick + length) * step, name.removesuffix(".over"), reason)
        tick += length


def _overrides(description: Description) -> Iterator[Override]:
    for number, row in enumerate(description.overrides, 1):
        begins = description.start + row.at
        yield Override(
            id=number,
            kind=OverrideKind(row.kind),
            policies=("*",),
            workers=row.workers,
            author=row.author,
            reason=row.reason,
            starts_at=begins,
            ends_at=begins + row.lasts,
        )


# --- comparing ---


def _failures(test: PolicyTest, simulation: Simulation) -> Iterator[Failure]:
    for expectation, line in zip(test.description.expect, test.expect_lines, strict=True):
        evaluation = simulation.evaluation_at(test.description.start + expectation.at)
        wrong = list(_differences(expectation, evaluation.decision))
        if wrong:
            expected, got = (", ".join(parts) for parts in zip(*wrong, strict=True))
            yield Failure(test.file, line, expectation.at, expected, got, evaluation.decision.sentence)
    bought = test.description.bought
    if bought is not None:
        purchases = [purchase for purchase in simulation.purchases if purchase.state not in NOTHING_BOUGHT]
        total = sum(purchase.asked for purchase in purchases)
        if total != bought:
            when = [f"{p.asked} at {_since(p.reserved_at, test)} ({p.state})" for p in simulation.purchases]
            told = ", ".join(when) or "nothing was bought"
            yield Failure(test.file, test.bought_line, None, f"bought {bought}", f"bought {total}", told)


def _differences(expectation: Expectation, decision: Decision) -> Iterator[tuple[str, str]]:
    """What was expected and what came instead, for each part of an expectation that was not met."""
    supply = decision.supply
    got: dict[str, object] = {
        "outcome": decision.outcome.value,
        "reason": decision.reason.value,
        "add": decision.add,
        "wanted": decision.wanted,
        "serving": None if supply is None else supply.serving,
        "in_flight": None if supply is None else supply.in_flight,
        "paid": None if supply is None else supply.paid,
    }
    for name, value in got.items():
        expected = getattr(expectation, name)
        if expected is not None and expected != value:
            yield f"{name} {expected}", f"{name} {'none' if value is None else value}"
    if expectation.says is not None and expectation.says not in decision.sentence:
        yield f"to say {expectation.says!r}", "another sentence"


def _since(at: datetime, test: PolicyTest) -> str:
    return format_duration(at - test.description.start)


__all__ = ["Failure", "Tested", "run_test"]
