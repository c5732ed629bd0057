"""What ``simulate`` puts side by side: policies and their variants, each with its course and its figures in words."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from statistics import median_high

from autoscaler.cli.output import NOTHING, instant, length
from autoscaler.facts import Reason
from autoscaler.policy import Policy
from autoscaler.simulation import Simulation
from autoscaler.simulation.figures import Figures, Shortage, measured


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is told of every candidate."""

    title: str
    cells: tuple[str, ...]  # a number or a time each, with NOTHING where there is none
    part: bool = False  # of what the row above tells


@dataclass(frozen=True, slots=True)
class Candidate:
    """One policy as it was simulated."""

    name: str  # the policy's; a variant is called by its changes
    changes: str  # of a variant, as given; empty: the policy as it is
    policy: Policy
    simulation: Simulation
    figures: Figures
    needs: "array[int]"  # workers that load needed, evaluation by evaluation
    started: str  # who says how many workers there were at the start

    @property
    def measured(self) -> bool:
        """Whether any check says how many workers load needs: steps only say how many to add."""
        return any(measured(self.simulation.policy, self.simulation.load))

    @property
    def course(self) -> tuple[object, ...]:
        """What a chart of it shows: equal for those that came to the same."""
        return self.simulation.levels, tuple(purchases_of(self)), self.needs.tobytes()


def figure_rows(candidates: Sequence[Candidate]) -> list[Row]:
    """The figures that are worth a look, a row each; one that says nothing of any candidate is left out."""
    currency = next((candidate.policy.currency for candidate in candidates if candidate.policy.currency), None)
    money = "money" if currency is None else currency

    def row(title: str, tell: Callable[[Figures], str], part: bool = True) -> Row:
        return Row(title, tuple(tell(candidate.figures) for candidate in candidates), part)

    rows = [
        row("workers bought", lambda f: str(f.bought), part=False),
        row("purchases", lambda f: str(f.purchases)),
        row("not arrived by the end", lambda f: str(f.bought - f.arrived) if f.bought - f.arrived else NOTHING),
        row(f"{money} committed", lambda f: NOTHING if f.money is None else amount(f.money), part=False),
        row("of it renewals", lambda f: amount(f.money_renewed) if f.money_renewed else NOTHING),
        row("node-hours paid for", lambda f: f"{float(f.node_hours):,.0f}", part=False),
        row("most workers paid for", lambda f: str(f.peak_paid)),
        row("most workers serving", lambda f: str(f.peak_serving)),
        Row("load short for", tuple(map(_short_for, candidates))),
        Row("of the time", tuple(map(_share_short, candidates)), part=True),
        row("times", lambda f: str(len(f.shortages)) if f.shortages else NOTHING),
        row("half of them caught up within", lambda f: _half(f.shortages)),
        row("longest", lambda f: length(f.longest_shortage) if f.shortages else NOTHING),
        row("began", lambda f: instant(_longest(f).start_at)[:16] if f.shortages else NOTHING),
        row("worst, workers short", lambda f: str(max(s.most for s in f.shortages)) if f.shortages else NOTHING),
        row("worker-hours short", lambda f: _hours(f.short_worker_time) if f.shortages else NOTHING),
        row(
            "not caught up at the end",
            lambda f: "yes" if f.shortages and f.shortages[-1].caught_up is False else NOTHING,
        ),
        row("workers whose term lapses", lambda f: str(sum(each.workers for each in f.lapses) or NOTHING), part=False),
        row("the first on", lambda f: instant(f.lapses[0].at)[:16] if f.lapses else NOTHING),
    ]
    return [each for each in rows if any(cell != NOTHING for cell in each.cells)]


def held_rows(candidates: Sequence[Candidate]) -> list[Row]:
    """What kept each candidate from buying: how many times, and of those while load was short."""
    reasons = dict.fromkeys(held.reason for candidate in candidates for held in candidate.figures.held)
    return [Row(reason.value, tuple(_held(candidate, reason) for candidate in candidates)) for reason in reasons]


def purchases_of(candidate: Candidate) -> list[tuple[datetime, int, str]]:
    """When each purchase was made, of how many workers, and what became of it where that is not all well."""
    return [
        (purchase.reserved_at, purchase.asked, "" if purchase.state.value == "fulfilled" else purchase.state.value)
        for purchase in candidate.simulation.purchases
    ]


def amount(money: Fraction) -> str:
    """Money, to the hundredth."""
    return f"{float(money):,.2f}"


def _short_for(candidate: Candidate) -> str:
    if candidate.figures.shortages:
        return length(candidate.figures.short_for)
    return "never" if candidate.measured else NOTHING


def _share_short(candidate: Candidate) -> str:
    figures, load = candidate.figures, candidate.simulation.load
    share = 100 * figures.short_for / (load.end_at - load.start_at)
    return NOTHING if not figures.shortages else f"{share:.1f} %" if share >= 0.05 else "under 0.1 %"


def _longest(figures: Figures) -> Shortage:
    return max(figures.shortages, key=lambda each: each.lasted)


def _half(shortages: Sequence[Shortage]) -> str:
    """The median of the times it took to catch up, the greater of two."""
    times = sorted(shortage.lasted for shortage in shortages if shortage.caught_up)
    return length(median_high(times)) if times else NOTHING


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):,.1f}"


def _held(candidate: Candidate, reason: Reason) -> str:
    held = next((each for each in candidate.figures.held if each.reason is reason), None)
    if held is None:
        return NOTHING
    short = f", {held.times_short} short for {length(held.lasted_short)}" if held.times_short else ""
    return f"{held.times}{short}"
