"""Simulations for people: a table that is read in ten seconds, a chart for each, what was bought, what held."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from string import ascii_uppercase

import click

from autoscaler.cli.candidates import Candidate, Row, amount, figure_rows, held_rows, purchases_of
from autoscaler.cli.course_chart import course_chart
from autoscaler.cli.output import NOTHING, columns_shown, count, instant, length, print_table
from autoscaler.cli.trial import Trial

_WIDEST = 110  # columns of a chart
_GAP = 2  # columns between two cells
_LONGEST_TITLE = 24  # of a column; longer ones are letters, told above
_MOST_PURCHASES = 12  # told one by one
_MOST_CHARTS = 4
_KEEP_TOGETHER = "\N{NO-BREAK SPACE}"


def echo_trial(trial: Trial) -> None:
    """Print what came of a trial."""
    candidates = trial.candidates
    for line in _introduction(candidates):
        click.echo(line)
    names = [*(candidate.name for candidate in candidates), *(f"daemon: {name}" for name in trial.past)]
    titles = names
    if len(names) > 1 and max(map(len, names)) > _LONGEST_TITLE:
        titles = list(ascii_uppercase[: len(names)]) if len(names) <= 26 else [str(n) for n in range(1, len(names) + 1)]
        click.echo()
        for title, name in zip(titles, names, strict=True):
            click.echo(f"  {title}  {name}")
    click.echo()
    _echo_side_by_side("", titles, comparison(trial))
    held = held_comparison(trial)
    if held:
        click.echo()
        _echo_side_by_side("held, times", titles, held)
    for name in trial.unknown:
        click.echo(f"\nThe ledger knows nothing of {name} in that time.")
    _echo_courses(candidates)


def _echo_side_by_side(first: str, titles: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table, in several pieces where a terminal is too narrow for all columns beside each other."""
    told = ["  " * row.part + row.title for row in rows]
    left = columns_shown() - max(map(len, (first, *told)))
    widths = [_GAP + max(len(title), *(len(row.cells[n]) for row in rows)) for n, title in enumerate(titles)]
    begin = 0
    while begin < len(titles):
        end = begin + 1
        while end < len(titles) and sum(widths[begin : end + 1]) <= left:
            end += 1
        if begin:
            click.echo()
        cells = [(title, *row.cells[begin:end]) for title, row in zip(told, rows, strict=True)]
        print_table([first, *titles[begin:end]], cells, numbers=True)
        begin = end


def _echo_courses(candidates: Sequence[Candidate]) -> None:
    """A chart and the purchases of each; of those with the same course one alone."""
    courses: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in candidates:
        courses.setdefault(candidate.course, []).append(candidate)
    width = min(columns_shown(), _WIDEST)
    for together in list(courses.values())[:_MOST_CHARTS]:
        first, *others = together
        alike = f", and so {', '.join(other.name for other in others)}" if others else ""
        click.echo(f"\n{first.name}{alike}: workers that load needed, served (█) and short (▓), and to spare (░)")
        for line in course_chart(first, width):
            click.echo(line)
        told = click.wrap_text(f"bought {_purchases(first)}", width, "        ", "        ")
        click.echo(told.replace(_KEEP_TOGETHER, " "))
    if len(courses) > _MOST_CHARTS:
        click.echo(f"\nThe charts of {len(courses) - _MOST_CHARTS} more are in --report.")


def comparison(trial: Trial) -> list[Row]:
    """The figures of every candidate, and of the daemon where that was asked for."""
    rows = [
        replace(row, cells=(*row.cells, *(_past_cell(trial, row.title, name) for name in trial.past)))
        for row in figure_rows(trial.candidates)
    ]
    if trial.optima:
        rows += _cheapest(trial)
    return rows


def held_comparison(trial: Trial) -> list[Row]:
    """What kept every candidate from buying, and the daemon where that was asked for."""
    rows = {row.title: row.cells for row in held_rows(trial.candidates)}
    for past in trial.past.values():
        for reason in past.reasons:
            rows.setdefault(reason.value, tuple(NOTHING for _ in trial.candidates))
    told = {
        (name, reason.value): f"{times} for {length(past.lasted[reason])}"
        for name, past in trial.past.items()
        for reason, times in past.reasons.items()
    }
    return [
        Row(reason, (*cells, *(told.get((name, reason), NOTHING) for name in trial.past)))
        for reason, cells in rows.items()
    ]


def introduction(candidate: Candidate) -> str:
    """Over what a candidate was simulated."""
    load = candidate.simulation.load
    return (
        f"{load.source}, {instant(load.start_at)} to {instant(load.end_at)}"
        f" ({length(load.end_at - load.start_at)}): {load.ticks:,} evaluation{'s' * (load.ticks > 1)},"
        f" one every {length(load.step)}"
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
    orders = [f"{count(len(simulation.overrides), 'order')} of people held then, and so here"]
    said = [f"{count(simulation.ready, 'worker')} at the start, {candidate.started}", joining, *failing]
    unmeasured = [
        "no check says how many workers load needs (steps say how many to add): whether it was short is unknown"
    ]
    return [
        *said,
        *(orders if simulation.overrides else []),
        *simulation.load.assumed,
        *([] if candidate.measured else unmeasured),
    ]


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
        f"{workers} on {at:%Y-%m-%d %H:%M}".replace(" ", _KEEP_TOGETHER) + (f" ({state})" if state else "")
        for at, workers, state in made[:_MOST_PURCHASES]
    ]
    more = [f"and {count(len(made) - len(told), 'more purchase')}"] if len(made) > len(told) else []
    return ", ".join(told + more)


def _past_cell(trial: Trial, title: str, name: str) -> str:
    past = trial.past[name]
    known = {
        "workers bought": str(past.bought),
        "purchases": str(len(past.purchases)),
        "most workers serving": NOTHING if past.peak_serving is None else str(past.peak_serving),
    }
    return known.get(title, NOTHING)


def _cheapest(trial: Trial) -> Iterator[Row]:
    """How far each candidate is from buying with perfect knowledge."""
    nothing = tuple(NOTHING for _ in trial.past)
    best = [trial.optima[candidate.name] if candidate.measured else None for candidate in trial.candidates]
    spent = [candidate.figures.money for candidate in trial.candidates]
    money = tuple(NOTHING if each is None or each.money is None else amount(each.money) for each in best)
    terms = tuple(NOTHING if each is None else str(each.workers) for each in best)
    if all(cell == NOTHING for cell in terms):
        return
    yield Row("cheapest that is never short, terms", (*terms, *nothing))
    if any(cell != NOTHING for cell in money):
        more = tuple(
            NOTHING if each is None or not each.money or was is None else f"{100 * float(was / each.money - 1):+.0f} %"
            for each, was in zip(best, spent, strict=True)
        )
        yield Row("its price", (*money, *nothing), part=True)
        yield Row("spent, against its price", (*more, *nothing), part=True)
