"""Simulations for people: a table that is read in ten seconds, a chart for each, what was bought, what held."""

import shutil
from collections.abc import Iterator, Sequence

import click

from autoscaler.cli.candidates import Candidate, Row, amount, figure_rows, held_rows, purchases_of
from autoscaler.cli.course_chart import course_chart
from autoscaler.cli.output import NOTHING, count, instant, length, print_table
from autoscaler.cli.trial import Trial

_WIDEST_CHART = 110
_MOST_PURCHASES = 12  # told one by one
_MOST_CHARTS = 4


def echo_trial(trial: Trial) -> None:
    """Print what came of a trial."""
    candidates = trial.candidates
    for line in _introduction(candidates):
        click.echo(line)
    names = [candidate.name for candidate in candidates] + [f"daemon: {name}" for name in trial.past]
    click.echo()
    print_table(["", *names], [(title, *cells) for title, cells in comparison(trial)])
    held = held_comparison(trial)
    if held:
        click.echo("\nWhat held")
        print_table(["", *names], [(title, *cells) for title, cells in held])
    for candidate in candidates[:_MOST_CHARTS]:
        click.echo(f"\n{candidate.name}: workers that load needed (█ served, ▓ short), workers to spare (░)")
        width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST_CHART)
        for line in course_chart(candidate.simulation, width):
            click.echo(line)
        click.echo(f"  bought: {_purchases(candidate)}")
    if len(candidates) > _MOST_CHARTS:
        click.echo(f"\nCharts of the other {len(candidates) - _MOST_CHARTS} are in --report.")


def comparison(trial: Trial) -> list[Row]:
    """The figures of every candidate, and of the daemon where that was asked for."""
    rows = [
        (title, (*cells, *(_past_cell(trial, title, name) for name in trial.past)))
        for title, cells in figure_rows(trial.candidates)
    ]
    if trial.optima:
        cheapest = [_cheapest(candidate, trial) for candidate in trial.candidates]
        rows.append(("cheapest possible", (*cheapest, *(NOTHING for _ in trial.past))))
    return rows


def held_comparison(trial: Trial) -> list[Row]:
    """What kept every candidate from buying, and the daemon where that was asked for."""
    rows = dict(held_rows(trial.candidates))
    for past in trial.past.values():
        for reason in past.reasons:
            rows.setdefault(reason.value, tuple(NOTHING for _ in trial.candidates))
    told = {
        (name, reason.value): f"{count(times, 'time')} ({length(past.lasted[reason])})"
        for name, past in trial.past.items()
        for reason, times in past.reasons.items()
    }
    return [
        (reason, (*cells, *(told.get((name, reason), NOTHING) for name in trial.past)))
        for reason, cells in rows.items()
    ]


def introduction(candidate: Candidate) -> str:
    """Over what a candidate was simulated."""
    load = candidate.simulation.load
    return (
        f"{load.source}, {instant(load.start_at)} to {instant(load.end_at)}"
        f" ({length(load.end_at - load.start_at)}): {load.ticks:,} evaluations, every {length(load.step)}"
    )


def assumptions(candidate: Candidate) -> list[str]:
    """What was assumed of a candidate's simulation, a sentence each."""
    simulation = candidate.simulation
    market, policy = simulation.market, candidate.policy
    join = market.join
    if join is None:
        joining = f"workers join after {length(policy.assumed_join)}, the policy's assumed_join"
    elif join.least == join.most:
        joining = f"workers join after {length(join.least)}"
    else:
        between = f"{length(join.least)} and {length(join.most)}"
        joining = f"workers join after between {between}, most often {length(join.likely)}"
    failing = [f"{market.failing:.1%} of the workers never join (seed {market.seed})"] if market.failing else []
    said = [f"{count(simulation.ready, 'worker')} at the start, {candidate.started}", joining, *failing]
    return [*said, *simulation.load.assumed]


def _introduction(candidates: Sequence[Candidate]) -> Iterator[str]:
    told: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for candidate in candidates:
        key = introduction(candidate), tuple(assumptions(candidate))
        told.setdefault(key, []).append(candidate.name)
    for (over, assumed), names in told.items():
        yield f"{', '.join(names)}: {over}" if len(told) > 1 else over
        yield from (f"  {sentence}" for sentence in assumed)


def _purchases(candidate: Candidate) -> str:
    made = purchases_of(candidate)
    if not made:
        return "nothing"
    told = [
        f"{workers} on {at:%Y-%m-%d %H:%M}" + (f" ({state})" if state else "")
        for at, workers, state in made[:_MOST_PURCHASES]
    ]
    more = [f"and {count(len(made) - len(told), 'more purchase')}"] if len(made) > len(told) else []
    return ", ".join(told + more)


def _past_cell(trial: Trial, title: str, name: str) -> str:
    past = trial.past[name]
    match title:
        case "bought":
            return f"{past.bought} in {count(len(past.purchases), 'purchase')}" if past.purchases else "nothing"
        case "most serving":
            return NOTHING if past.peak_serving is None else str(past.peak_serving)
        case _:
            return NOTHING


def _cheapest(candidate: Candidate, trial: Trial) -> str:
    best = trial.optima[candidate.name]
    terms = count(best.workers, "worker term")
    if best.money is None or candidate.figures.money is None:
        return terms
    spent = candidate.figures.money
    compared = f", {100 * float(spent / best.money - 1):+.0f} % spent" if best.money else ""
    return f"{amount(best.money)} {candidate.policy.currency or ''}".rstrip() + f", {terms}{compared}"
