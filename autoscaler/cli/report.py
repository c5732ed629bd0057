"""A trial as one HTML page: charts, the comparison, what held, the policies. No script, and nothing from elsewhere."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from autoscaler import __version__
from autoscaler.charts import MOST_POINTS, STYLE, Band, Curve, Mark, chart
from autoscaler.cli.candidates import Candidate
from autoscaler.cli.failure import Exit, fail
from autoscaler.cli.output import count, instant, length
from autoscaler.cli.simulation_text import assumptions, comparison, held_comparison, introduction
from autoscaler.cli.trial import Trial
from autoscaler.model import PurchaseState
from autoscaler.policy.files import expanded
from autoscaler.simulation.figures import Shortage

_WIDE, _NARROW = (1040, 260), (350, 220)
_MOST_PURCHASES = 200
_MOST_SHORTAGES = 20
_MARGIN = timedelta(hours=1)  # shown around the longest shortage
_ENDED = {True: "", False: ", not caught up", None: ", then no reading"}
_WELL = frozenset({PurchaseState.FULFILLED, PurchaseState.ACCEPTED})


@dataclass(frozen=True, slots=True)
class _Section:
    """One candidate as the page shows it."""

    name: str
    summary: str
    same_as: str  # another, shown before, with the same course; empty: none
    overridden: bool  # whether people gave orders
    unsettled: bool  # whether a purchase did not come, or not whole
    charts: tuple[Markup, ...]  # the same, wide and narrow
    close_up: tuple[Markup, ...]  # around the longest shortage; empty without one
    close_up_title: str
    purchases: tuple[tuple[str, str, str, bool, str], ...]  # when, workers, state, whether that is well, why
    purchases_left_out: int
    shortages: tuple[tuple[str, str, str, str], ...]
    shortages_left_out: int
    lapses: tuple[tuple[str, str], ...]
    over: str
    assumed: tuple[str, ...]
    version: str
    text: str


def write_report(path: Path, trial: Trial) -> None:
    """Write the page; the command fails where that cannot be written."""
    try:
        path.write_text(report(trial), encoding="utf-8")
    except OSError as error:
        fail(Exit.USAGE, f"{path} cannot be written: {error.strerror}")


def report(trial: Trial) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("autoscaler.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    names = [*(candidate.name for candidate in trial.candidates), *(f"daemon: {name}" for name in trial.past)]
    policies = list(dict.fromkeys(candidate.policy.name for candidate in trial.candidates))
    return environment.get_template("report.html").render(
        title=f"Simulation of {', '.join(policies)}",
        style=Markup(STYLE),
        names=names,
        rows=comparison(trial),
        held=held_comparison(trial),
        sections=list(_sections(trial.candidates)),
        version=__version__,
    )


def _sections(candidates: Sequence[Candidate]) -> Iterator[_Section]:
    shown: dict[tuple[object, ...], str] = {}
    for candidate in candidates:
        same_as = shown.setdefault(candidate.course, candidate.name)
        yield _section(candidate, "" if same_as == candidate.name else same_as)


def _section(candidate: Candidate, same_as: str) -> _Section:
    simulation, figures = candidate.simulation, candidate.figures
    load = simulation.load
    worst = [] if same_as else sorted(figures.shortages, key=lambda each: (-each.lasted, each.start_at))
    close_up, close_up_title = _close_up(candidate, worst[0]) if worst else ((), "")
    purchases = () if same_as else tuple(_purchases(candidate))
    return _Section(
        name=candidate.name,
        summary=_summary(candidate),
        same_as=same_as,
        overridden=bool(simulation.overrides),
        unsettled=any(purchase.state not in _WELL for purchase in simulation.purchases),
        charts=() if same_as else _drawn(candidate, load.start_at, load.end_at, "over the whole time"),
        close_up=close_up,
        close_up_title=close_up_title,
        purchases=purchases[:_MOST_PURCHASES],
        purchases_left_out=max(0, len(purchases) - _MOST_PURCHASES),
        shortages=tuple(map(_shortage, worst[:_MOST_SHORTAGES])),
        shortages_left_out=max(0, len(worst) - _MOST_SHORTAGES),
        lapses=tuple((instant(lapse.at), count(lapse.workers, "worker")) for lapse in figures.lapses),
        over=introduction(candidate),
        assumed=tuple(assumptions(candidate)),
        version=candidate.policy.version,
        text=_policy_text(candidate),
    )


def _summary(candidate: Candidate) -> str:
    """What came of it, in two sentences."""
    figures = candidate.figures
    bought = f"Bought {count(figures.bought, 'worker')} in {count(figures.purchases, 'purchase')}."
    if not figures.purchases:
        bought = "Bought nothing."
    if not figures.shortages:
        return f"{bought} Load was never short of workers." if candidate.measured else bought
    times = count(len(figures.shortages), "time")
    return (
        f"{bought} Load was short of workers {times}, for {length(figures.short_for)} in all"
        f" and {length(figures.longest_shortage)} at the longest."
    )


# --- charts ---


def _drawn(candidate: Candidate, start_at: datetime, end_at: datetime, when: str) -> tuple[Markup, ...]:
    """The course from one instant to another, for a wide page and for a narrow one."""
    simulation = candidate.simulation
    label = f"Workers that load needed and workers that served, {candidate.name}, {when}"
    bands = [*_override_bands(candidate), *_shortage_bands(candidate)]
    marks = [
        Mark(
            "bought" if purchase.state in _WELL else "unsettled",
            purchase.reserved_at,
            f"{instant(purchase.reserved_at)}: {count(purchase.asked, 'worker')}, {purchase.state}",
        )
        for purchase in simulation.purchases
        if start_at <= purchase.reserved_at < end_at
    ]
    inside = [band for band in bands if band.start_at < end_at and band.end_at > start_at]
    curves = [
        Curve("capacity", _levels(candidate, start_at, end_at), stepped=True, filled=True),
        Curve("load", _needs(candidate, start_at, end_at)),
    ]
    return tuple(
        Markup(
            chart(
                curves,
                start_at=start_at,
                end_at=end_at,
                label=label,
                bands=inside,
                marks=marks,
                width=width,
                height=height,
            )
        )
        for width, height in (_WIDE, _NARROW)
    )


def _close_up(candidate: Candidate, shortage: Shortage) -> tuple[tuple[Markup, ...], str]:
    load = candidate.simulation.load
    around = max(_MARGIN, shortage.lasted / 2)
    start_at, end_at = max(load.start_at, shortage.start_at - around), min(load.end_at, shortage.end_at + around)
    title = f"The longest shortage: {length(shortage.lasted)} from {instant(shortage.start_at)}"
    return _drawn(candidate, start_at, end_at, "around the longest shortage"), title


def _levels(candidate: Candidate, start_at: datetime, end_at: datetime) -> list[tuple[datetime, float]]:
    levels = candidate.simulation.levels
    before = [level for level in levels if level.at <= start_at]
    within = [(level.at, float(level.serving)) for level in levels if start_at < level.at < end_at]
    first = before[-1] if before else levels[0]
    points = [(start_at, float(first.serving)), *within]
    return [*points, (end_at, points[-1][1])]


def _needs(candidate: Candidate, start_at: datetime, end_at: datetime) -> list[tuple[datetime, float]]:
    """The load's need, few enough points to draw: of each stretch the least and the greatest."""
    load, needs = candidate.simulation.load, candidate.needs
    first = max(0, (start_at - load.start_at) // load.step)
    last = min(load.ticks, -((load.start_at - end_at) // load.step))
    size = max(1, -(-2 * (last - first) // MOST_POINTS))
    points: list[tuple[datetime, float]] = []
    for begin in range(first, last, size):
        stretch = needs[begin : min(begin + size, last)]
        extremes = sorted({stretch.index(min(stretch)), stretch.index(max(stretch))})
        points += [(load.at(begin + tick), float(stretch[tick])) for tick in extremes]
    return points


def _shortage_bands(candidate: Candidate) -> Iterator[Band]:
    for shortage in candidate.figures.shortages:
        says = f"{instant(shortage.start_at)}: short of {count(shortage.most, 'worker')} for {length(shortage.lasted)}"
        yield Band("short", shortage.start_at, shortage.end_at, says)


def _override_bands(candidate: Candidate) -> Iterator[Band]:
    for order in candidate.simulation.overrides:
        workers = "" if order.workers is None else f" {order.workers}"
        says = f"{order.kind}{workers} by {order.author}: {order.reason}"
        yield Band("override", order.starts_at, order.ends_at, says)


# --- tables and texts ---


def _purchases(candidate: Candidate) -> Iterator[tuple[str, str, str, bool, str]]:
    simulation = candidate.simulation
    for number, purchase in enumerate(simulation.purchases):
        # Each sentence is decided again; beyond what is shown that would take long for nothing.
        shown = number < _MOST_PURCHASES
        why = simulation.evaluation_at(purchase.reserved_at).decision.sentence if shown else ""
        well = purchase.state in _WELL
        yield instant(purchase.reserved_at), str(purchase.asked), purchase.state.value, well, why


def _shortage(shortage: Shortage) -> tuple[str, str, str, str]:
    lasted = length(shortage.lasted) + _ENDED[shortage.caught_up]
    time = f"{shortage.worker_time / timedelta(hours=1):,.1f}"
    return instant(shortage.start_at), lasted, str(shortage.most), time


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after a dot, a dash or an equals sign."""
    return Markup("<wbr>").join(re.findall(r"[^.=-]+[.=-]*|[.=-]+", name))


def _policy_text(candidate: Candidate) -> str:
    yaml = YAML()
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(expanded(candidate.policy), text)
    return text.getvalue()


__all__ = ["report", "write_report"]
