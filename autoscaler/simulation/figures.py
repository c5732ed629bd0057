"""What a simulation says in numbers: what was bought, what it cost, when load was short, and what held."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil, isnan

from autoscaler.budget import payments
from autoscaler.facts import Reason
from autoscaler.model import Outcome
from autoscaler.policy import PerWorker, Policy, Setpoint
from autoscaler.purchase import committed
from autoscaler.simulation.load import Load, exact
from autoscaler.simulation.result import Simulation
from autoscaler.supply import Lapse

# A quotient of doubles is off by far less; nearer to a whole number it is decided exactly.
_UNSURE = 1e-9
# What load may need at most, in workers: as many as the highest maximum, so that sums of it can be kept.
_MOST_WORKERS = 1_000_000
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Shortage:
    """A time in which load needed more workers than served; it begins with a rise and ends when that is caught up.

    A gap ends it too: nobody can say how short a load was that was not read.
    """

    start_at: datetime
    end_at: datetime  # from then on enough served, as far as is known; the load's end if that did not come
    caught_up: bool | None  # False: still short at the end; None: nobody knows, load has no reading from then on
    most: int  # workers short at the worst tick
    worker_time: timedelta  # the shortage summed: a worker short for an hour is an hour

    @property
    def lasted(self) -> timedelta:
        """How long it took to catch up."""
        return self.end_at - self.start_at


@dataclass(frozen=True, slots=True)
class Held:
    """How often one reason kept a policy from buying."""

    reason: Reason
    times: int  # without a break in between
    times_short: int  # of those, the ones in which load was short
    lasted: timedelta
    lasted_short: timedelta


@dataclass(frozen=True, slots=True)
class Figures:
    """One simulation in numbers. Money is in the policy's currency, None where it names no price."""

    purchases: int  # those that bought or may have bought
    bought: int  # workers asked for by them
    arrived: int  # of those, the ones that came
    peak_paid: int  # most workers paid for at once
    peak_serving: int
    node_hours: Fraction  # of paid workers, those there at the start included
    money_bought: Fraction | None  # committed by purchases; the workers there at the start are not counted
    money_renewed: Fraction | None  # committed by renewals of what was bought, within the load
    lapses: tuple[Lapse, ...]  # ends of terms that are not renewed, those after the load included
    shortages: tuple[Shortage, ...]  # oldest first
    held: tuple[Held, ...]  # most often first

    @property
    def money(self) -> Fraction | None:
        """All that was committed."""
        if self.money_bought is None or self.money_renewed is None:
            return None
        return self.money_bought + self.money_renewed

    @property
    def short_for(self) -> timedelta:
        """How long load was short."""
        return sum((shortage.lasted for shortage in self.shortages), timedelta(0))

    @property
    def short_worker_time(self) -> timedelta:
        """How much load was short: workers short × time."""
        return sum((shortage.worker_time for shortage in self.shortages), timedelta(0))

    @property
    def longest_shortage(self) -> timedelta:
        """The longest time it took to catch up; nothing if load was never short."""
        return max((shortage.lasted for shortage in self.shortages), default=timedelta(0))


def figures(simulation: Simulation) -> Figures:
    """The numbers of one simulation."""
    load, levels = simulation.load, simulation.levels
    shortages = tuple(_shortages(simulation))
    made = [purchase for purchase in simulation.purchases if committed(purchase)]
    priced = simulation.policy.price_per_worker_month is not None
    paid = [(purchase.sent_at, at, money) for purchase in made for at, money in payments(purchase, load.end_at)]
    ends = [*(level.at for level in levels[1:]), load.end_at]
    return Figures(
        purchases=len(made),
        bought=sum(purchase.asked for purchase in made),
        arrived=sum(tenure.purchase_id is not None and tenure.ready_at is not None for tenure in simulation.tenures),
        peak_paid=max(level.paid for level in levels),
        peak_serving=max(level.serving for level in levels),
        node_hours=Fraction(
            sum(level.paid * ((end - level.at) // _MICROSECOND) for level, end in zip(levels, ends, strict=True)),
            timedelta(hours=1) // _MICROSECOND,
        ),
        money_bought=sum((money for sent_at, at, money in paid if at == sent_at), Fraction(0)) if priced else None,
        money_renewed=sum((money for sent_at, at, money in paid if at != sent_at), Fraction(0)) if priced else None,
        lapses=_lapses(simulation),
        shortages=shortages,
        held=_held(simulation, shortages),
    )


def needed(policy: Policy, load: Load) -> "array[int]":
    """The workers that each tick's load needs, without headroom; 0 where no check of a load has a reading.

    ``per_worker``: load / load_per_worker. ``setpoint``: load / target, up to its tolerance. ``steps`` only say how
    many to add, and schedules are no load.
    """
    most = array("q", bytes(8 * load.ticks))
    for values, each in measured(policy, load):
        most = array("q", map(max, most, _shares(values, each)))
    return most


def measured(policy: Policy, load: Load) -> "Iterator[tuple[array[float], Fraction]]":
    """The series that say how many workers load needs, each with what one worker may carry of it at most."""
    for check in policy.checks:
        values = load.series.get(check.name)
        if values is None:
            continue
        if isinstance(check, PerWorker):
            yield values, check.load_per_worker
        elif isinstance(check, Setpoint):
            yield values, check.target * (1 + check.tolerance)


def _shares(values: Sequence[float], each: Fraction) -> Iterator[int]:
    """How many workers share each value at no more than ``each``, exactly."""
    about = float(each)
    for value in values:
        if isnan(value) or value <= 0:
            yield 0
            continue
        quotient = value / about
        if quotient >= _MOST_WORKERS:
            yield _MOST_WORKERS
        elif abs(quotient - round(quotient)) <= _UNSURE * max(1.0, quotient):
            yield ceil(exact(value) / each)
        else:
            yield ceil(quotient)


def _shortages(simulation: Simulation) -> Iterator[Shortage]:
    load, levels = simulation.load, simulation.levels
    wanted = needed(simulation.policy, load)
    read = [values for values, _ in measured(simulation.policy, load)]
    starts = [load.tick(level.at) for level in levels]
    begun: int | None = None
    most = total = 0
    for number, (start, end) in enumerate(pairwise([*starts, load.ticks])):
        serving = levels[number].serving
        if begun is None and max(wanted[start:end]) <= serving:
            continue
        for tick in range(start, end):
            short = wanted[tick] - serving
            if short > 0:
                begun = tick if begun is None else begun
                most, total = max(most, short), total + short
            elif begun is not None:
                caught_up = True if any(not isnan(values[tick]) for values in read) else None
                yield Shortage(load.at(begun), load.at(tick), caught_up, most, total * load.step)
                begun, most, total = None, 0, 0
    if begun is not None:
        yield Shortage(load.at(begun), load.end_at, False, most, total * load.step)


def _held(simulation: Simulation, shortages: Sequence[Shortage]) -> tuple[Held, ...]:
    sums: dict[Reason, list[int]] = {}
    step, first = simulation.load.step, 0
    for span in simulation.spans:
        if span.outcome is Outcome.SCALE_OUT or span.reason is Reason.ENOUGH:
            continue
        while first < len(shortages) and shortages[first].end_at <= span.start_at:
            first += 1
        short, number = timedelta(0), first
        while number < len(shortages) and shortages[number].start_at < span.end_at:
            shortage = shortages[number]
            short += min(shortage.end_at, span.end_at) - max(shortage.start_at, span.start_at)
            number += 1
        tally = sums.setdefault(span.reason, [0, 0, 0, 0])
        for n, more in enumerate((1, bool(short), span.ticks, short // step)):
            tally[n] += more
    held = [
        Held(reason, times, times_short, ticks * step, ticks_short * step)
        for reason, (times, times_short, ticks, ticks_short) in sums.items()
    ]
    return tuple(sorted(held, key=lambda one: (-one.times, one.reason)))


def _lapses(simulation: Simulation) -> tuple[Lapse, ...]:
    ends: dict[datetime, int] = {}
    for tenure in simulation.tenures:
        if tenure.ends_at is not None:
            ends[tenure.ends_at] = ends.get(tenure.ends_at, 0) + 1
    return tuple(Lapse(at, workers) for at, workers in sorted(ends.items()))
