"""What ``simulate`` puts side by side: policies and their variants, each with its course and its figures in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from statistics import median

from autoscaler.cli.output import NOTHING, count, instant, length
from autoscaler.facts import Reason
from autoscaler.policy import Policy
from autoscaler.simulation import Simulation
from autoscaler.simulation.figures import Figures, Held, Shortage

Row = tuple[str, tuple[str, ...]]
"""What is told, and how each candidate does."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One policy as it was simulated."""

    name: str  # the policy's; a variant is called by its changes
    changes: str  # of a variant, as given; empty: the policy as it is
    policy: Policy
    simulation: Simulation
    figures: Figures
    started: str  # who says how many workers there were at the start


def figure_rows(candidates: Sequence[Candidate]) -> list[Row]:
    """The figures that are worth a look, a row each; one that says nothing of any candidate is left out."""
    rows = [
        ("bought", [_bought(candidate.figures) for candidate in candidates]),
        ("committed", [_committed(candidate) for candidate in candidates]),
        ("paid for", [_paid(candidate.figures) for candidate in candidates]),
        ("most serving", [str(candidate.figures.peak_serving) for candidate in candidates]),
        ("load short", [_short(candidate) for candidate in candidates]),
        ("short by", [_short_by(candidate.figures) for candidate in candidates]),
        ("longest", [_longest(candidate.figures) for candidate in candidates]),
        ("caught up in", [_caught_up(candidate.figures) for candidate in candidates]),
        ("terms that lapse", [_lapses(candidate.figures) for candidate in candidates]),
    ]
    return [(title, tuple(cells)) for title, cells in rows if any(cell != NOTHING for cell in cells)]


def held_rows(candidates: Sequence[Candidate]) -> list[Row]:
    """What kept each candidate from buying, by reason, and how much of that while load was short."""
    reasons = dict.fromkeys(held.reason for candidate in candidates for held in candidate.figures.held)
    return [(reason.value, tuple(_held(candidate, reason) for candidate in candidates)) for reason in reasons]


def purchases_of(candidate: Candidate) -> list[tuple[datetime, int, str]]:
    """When each purchase was made, of how many workers, and what became of it where that is not all well."""
    return [
        (purchase.reserved_at, purchase.asked, "" if purchase.state.value == "fulfilled" else purchase.state.value)
        for purchase in candidate.simulation.purchases
    ]


def amount(money: Fraction) -> str:
    """Money, to the hundredth."""
    return f"{float(money):,.2f}"


def hours(time: timedelta) -> str:
    """Workers × time."""
    return f"{time / timedelta(hours=1):,.1f} worker-hours"


def _bought(figures: Figures) -> str:
    if not figures.purchases:
        return "nothing"
    missing = f", {figures.arrived} came" if figures.arrived < figures.bought else ""
    return f"{figures.bought} in {count(figures.purchases, 'purchase')}{missing}"


def _committed(candidate: Candidate) -> str:
    figures = candidate.figures
    if figures.money is None:
        return NOTHING
    renewed = f", {amount(figures.money_renewed)} of it renewals" if figures.money_renewed else ""
    return f"{amount(figures.money)} {candidate.policy.currency or ''}".rstrip() + renewed


def _paid(figures: Figures) -> str:
    return f"{float(figures.node_hours):,.0f} node-hours, at most {figures.peak_paid}"


def _short(candidate: Candidate) -> str:
    figures, load = candidate.figures, candidate.simulation.load
    if not figures.shortages:
        return "never"
    share = 100 * figures.short_for / (load.end_at - load.start_at)
    return f"{length(figures.short_for)} in {count(len(figures.shortages), 'time')}, {_percent(share)}"


def _percent(share: float) -> str:
    return f"{share:.1f} %" if share >= 0.1 else "under 0.1 %"


def _short_by(figures: Figures) -> str:
    if not figures.shortages:
        return NOTHING
    most = max(shortage.most for shortage in figures.shortages)
    return f"at most {count(most, 'worker')}, {hours(figures.short_worker_time)}"


def _longest(figures: Figures) -> str:
    if not figures.shortages:
        return NOTHING
    shortage: Shortage = max(figures.shortages, key=lambda each: each.lasted)
    open_end = "" if shortage.caught_up else ", not caught up"
    return f"{length(shortage.lasted)} from {instant(shortage.start_at)}{open_end}"


def _caught_up(figures: Figures) -> str:
    times = sorted(shortage.lasted for shortage in figures.shortages if shortage.caught_up)
    return f"{length(median(times))} by half of the times" if times else NOTHING


def _lapses(figures: Figures) -> str:
    if not figures.lapses:
        return NOTHING
    first = figures.lapses[0]
    more = f", in {count(len(figures.lapses), 'time')}" if len(figures.lapses) > 1 else ""
    workers = sum(lapse.workers for lapse in figures.lapses)
    return f"{count(workers, 'worker')} from {instant(first.at)} on{more}"


def _held(candidate: Candidate, reason: Reason) -> str:
    held: Held | None = next((each for each in candidate.figures.held if each.reason is reason), None)
    if held is None:
        return NOTHING
    short = f", {held.times_short} while short ({length(held.lasted_short)})" if held.times_short else ""
    return f"{count(held.times, 'time')}{short}"
