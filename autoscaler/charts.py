"""Charts over time as SVG that a page inlines: curves, stretches of time behind them, and marks at instants.

What comes back holds no script, no style, no id and no link. It is drawn by the page's own style sheet, of which STYLE
is the part for charts: every colour is a CSS variable, so dark and light are the page's. Text keeps its size only
where the chart is shown about as wide as it was drawn; for a phone draw it again, narrower.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from math import ceil, floor, log10
from typing import Any, Final

from pygal import XY
from pygal.svg import Svg

__all__ = ["STYLE", "Band", "Curve", "Mark", "chart"]

Points = Sequence[tuple[datetime, float | None]]

MOST_POINTS: Final = 600
"""Points of one curve; more are thinned to the least and the greatest of each stretch, which looks the same."""

STYLE: Final = """
.chart { display: block; width: 100%; height: auto; font-size: 11px; }
.chart text { fill: var(--chart-text, #57606a); }
.chart .background { fill: none; }
.chart .axis.x text { text-anchor: middle; }
.chart .axis.y text { text-anchor: end; }
.chart .axis .line { stroke: var(--chart-grid, #d8dee4); stroke-width: 1; fill: none; }
.chart .axis.x .guide.line { stroke-opacity: .5; }
.chart .no_data { text-anchor: middle; }
.chart .curve { stroke: var(--look); stroke-width: 1.5; stroke-linejoin: round; fill: none; }
.chart .area { stroke: none; fill: var(--look); fill-opacity: .14; }
.chart .band { fill: var(--look); fill-opacity: .18; }
.chart .mark { stroke: var(--look); stroke-width: 1.5; fill: var(--look); }
"""
"""Rules for every chart of a page. A look's colour is the variable ``--look``, set by the page for each look it uses:
``.chart .load, .key .load { --look: var(--load) }``. Grid and text are ``--chart-grid`` and ``--chart-text``."""

_STEPS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
)
_UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60, 120)
_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)  # steps of a week begin on Mondays, shorter ones fit into days
_LABEL_WIDTH: Final = 58  # of a label of the time axis, with the space to the next
_LETTER_WIDTH: Final = 6.2
_LABEL_SIZE: Final = 11
_MARK_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class Curve:
    """A value over time."""

    look: str  # class of its drawing, such as "load": the style sheet gives it a colour
    points: Points  # oldest first; None is a gap
    stepped: bool = False  # a value holds until the next one; else they are joined by straight lines
    filled: bool = False  # the area under it is tinted


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time behind the curves, such as one in which workers were short."""

    look: str
    start_at: datetime
    end_at: datetime
    says: str  # what a pointer that rests on it is told


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant, such as that of a purchase: a small triangle on the time axis."""

    look: str
    at: datetime
    says: str


def chart(
    curves: Sequence[Curve],
    *,
    start_at: datetime,
    end_at: datetime,
    label: str,
    bands: Sequence[Band] = (),
    marks: Sequence[Mark] = (),
    width: int = 960,
    height: int = 240,
) -> str:
    """An ``<svg>`` element of class ``chart``, drawn from ``start_at`` to ``end_at`` in UTC and from 0 up.

    ``label`` is what somebody is told who cannot see it. All texts are escaped. Equal arguments give equal text.
    Gaps, and curves without points, are left blank.
    """
    end_at = max(end_at, start_at + timedelta(seconds=1))
    drawn = _Drawing(label, start_at.timestamp(), end_at.timestamp(), bands, marks, width, height)
    greatest = 0.0
    for curve in curves:
        points = thinned(curve.points, stepped=curve.stepped)
        greatest = max(greatest, *(value for _, value in points if value is not None), 0.0)
        for some, joined in groupby(points, key=lambda point: point[1] is not None):
            if some:
                drawn.looks.append(curve)
                drawn.add("", list(_vertices(list(joined), curve.stepped)))
    if not drawn.looks:
        drawn.add("", [(None, None)])  # without one pygal has no axes either
    heights = _heights(greatest)
    most = max(2, floor(width / _LABEL_WIDTH) - 1)
    return drawn.render_with(
        list(_instants(start_at, end_at, most)), list(zip(heights, _amounts(heights), strict=True))
    )


def thinned(points: Points, *, stepped: bool, most: int = MOST_POINTS) -> Points:
    """At most ``most`` of ``points``: of each stretch of time its least and its greatest, and of steps its last.

    A gap is kept where it fills its stretch; a shorter one could not be seen.
    """
    most = most // 2 if stepped else most  # a step is drawn by two points
    if len(points) <= most:
        return points
    stretches = most // (3 if stepped else 2)
    start, length = points[0][0], (points[-1][0] - points[0][0]) / stretches or timedelta(microseconds=1)
    kept: list[tuple[datetime, float | None]] = []
    for _, stretch in groupby(points, key=lambda point: min((point[0] - start) // length, stretches - 1)):
        together = list(stretch)
        values = [(at, value) for at, value in together if value is not None]
        if not values:
            kept.append(together[0])
            continue
        low, high = min(values, key=lambda point: point[1]), max(values, key=lambda point: point[1])
        kept += sorted({low, high, *(values[-1:] if stepped else ())})
    return kept


def _vertices(points: Points, stepped: bool) -> Iterator[tuple[float, float]]:
    before: float | None = None
    for at, value in points:
        if value is None:
            continue
        if stepped and before is not None:
            yield at.timestamp(), before
        yield at.timestamp(), value
        before = value


def _heights(greatest: float) -> list[float]:
    """Round numbers from 0 to beyond ``greatest``, four to six of them."""
    if not greatest > 0:
        return [0.0, 1.0]
    rough = greatest / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(ceil(greatest / step * 0.999) + 1)]


def _amounts(heights: Sequence[float]) -> list[str]:
    """The heights as they stand on an axis, in one unit; nothing at 0 needs one."""
    size, unit = next(((size, unit) for size, unit in _UNITS if heights[-1] >= size), (1.0, ""))
    step = heights[1] / size
    places = 0 if step >= 1 else -floor(log10(step))
    return [f"{height / size:.{places}f}{unit}" if height else "0" for height in heights]


def _instants(start_at: datetime, end_at: datetime, most: int) -> Iterator[tuple[float, str]]:
    """Round instants, at most ``most``, each with what stands under it."""
    start_at, end_at = start_at.astimezone(UTC), end_at.astimezone(UTC)
    step = next((step for step in _STEPS if (end_at - start_at) / step <= most), None)
    if step is None:
        yield from _months(start_at, end_at, most)
        return
    at = start_at + (-((start_at - _MONDAY) % step) % step)
    while at <= end_at:
        midnight = at.time().replace(tzinfo=None) == datetime.min.time()
        yield at.timestamp(), _day(at) if midnight else f"{at:%H:%M:%S}" if step < _STEPS[4] else f"{at:%H:%M}"
        at += step


def _months(start_at: datetime, end_at: datetime, most: int) -> Iterator[tuple[float, str]]:
    length = (end_at.year - start_at.year) * 12 + end_at.month - start_at.month + 1
    step = next((step for step in _MONTHS if length / step <= most), _MONTHS[-1])
    begin = start_at.year * 12 + start_at.month - 1
    for month in range(begin - begin % step, end_at.year * 12 + end_at.month, step):
        at = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        if start_at <= at <= end_at:
            yield at.timestamp(), f"{at:%Y}" if at.month == 1 else f"{at:%b}" if step < 12 else f"{at:%b %Y}"


def _day(at: datetime) -> str:
    return f"{at.day} {at:%b}"


class _Drawing(XY):  # type: ignore[misc]  # pygal ships no types
    """Pygal's chart of points, with bands and marks, within fixed bounds."""

    _x_labels: list[tuple[str, float]]  # pygal's own

    def __init__(
        self,
        label: str,
        start: float,
        end: float,
        bands: Sequence[Band],
        marks: Sequence[Mark],
        width: int,
        height: int,
    ) -> None:
        super().__init__(
            width=width,
            height=height,
            no_prefix=True,
            show_legend=False,
            show_dots=False,
            show_y_guides=True,
            margin=4,
            margin_right=12,
            truncate_label=-1,
            no_data_text="no data",
            disable_xml_declaration=True,
            x_value_formatter=str,
        )
        self.label = label
        self.looks: list[Curve] = []
        self._bounds = start, end
        self._bands = bands
        self._marks = marks

    def render_with(self, instants: list[tuple[float, str]], heights: list[tuple[float, str]]) -> str:
        """The drawing, with these numbers on its axes."""
        self._top = heights[-1][0]
        self._widest = max(len(text) for _, text in heights) * _LETTER_WIDTH
        self.x_labels = [{"value": at, "label": text} for at, text in instants]
        self.y_labels = [{"value": height, "label": text} for height, text in heights]
        return str(self.render(is_unicode=True))

    def _draw(self) -> None:
        self.svg = _Plain(self)
        super()._draw()
        self.svg.sweep()

    def _compute(self) -> None:
        super()._compute()
        self._box.margin = 0
        self._box.xmin, self._box.xmax = self._bounds
        self._box.ymin, self._box.ymax = 0, self._top * 1.001  # pygal leaves out the label that stands at the very top

    def _compute_margin(self) -> None:
        super()._compute_margin()
        self.margin_box.left = self._widest + 10
        self.margin_box.top = _LABEL_SIZE / 2 + 2

    def _x_axis(self) -> None:
        # A label that would stick out at either end is left out: nothing is drawn outside an inlined drawing.
        inside = self.width - self.margin_box.x
        half = _LABEL_WIDTH / 2
        self._x_labels = [
            (text, at)
            for text, at in self._x_labels
            if half - self.margin_box.left <= self.view.x(at) <= inside + self.margin_box.right - half
        ]
        self._stretches()
        super()._x_axis()

    def _stretches(self) -> None:
        drawn: dict[str, float] = {}  # of each look, how far: one over another would be darker for no reason
        for band in sorted(self._bands, key=lambda band: band.start_at):
            left, right = (self._across(at) for at in (band.start_at, band.end_at))
            if right < drawn.get(band.look, left):
                continue
            left = max(left, drawn.get(band.look, left))
            right = drawn[band.look] = max(right, left + 1)  # or nobody would see it
            node = self.svg.node(
                self.nodes["plot"],
                "rect",
                class_=f"band {band.look}",
                x=round(left, 2),
                y=0,
                width=round(right - left, 2),
                height=round(self.view.height, 2),
            )
            self.svg.node(node, "title").text = band.says

    def _decorate(self) -> None:
        super()._decorate()
        for mark in self._marks:
            x, y, size = self._across(mark.at), self.view.height, _MARK_SIZE
            path = f"M{x:.2f} {y - 2 * size:.2f} l{size} {2 * size} h{-2 * size} z"
            node = self.svg.node(self.nodes["overlay"], "path", class_=f"mark {mark.look}", d=path)
            self.svg.node(node, "title").text = mark.says

    def line(self, serie: Any, rescale: bool = False) -> None:
        """Draw one curve, by numbers no finer than can be seen."""
        places = [self.view(point) for point in serie.points if None not in point]
        if not places:
            return
        curve, (first, _), (last, _) = self.looks[serie.index], places[0], places[-1]
        group = self.svg.node(self.nodes["plot"], class_=curve.look)
        if len(places) == 1:
            places.append((last + 1, places[0][1]))  # a reading between two gaps is a point of its own
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        if curve.filled:
            ground = f"{self.view.height:.1f}"
            self.svg.node(group, "path", d=f"M{first:.1f} {ground}L{path}L{last:.1f} {ground}z", class_="area")
        self.svg.node(group, "path", d=f"M{path}", class_="curve")

    def _across(self, at: datetime) -> float:
        start, end = self._bounds
        return float(self.view.x(min(max(at.timestamp(), start), end)))


class _Plain(Svg):  # type: ignore[misc]  # pygal ships no types
    """Pygal's SVG without scripts, style sheets, ids and the date it was made at."""

    def __init__(self, drawing: _Drawing) -> None:
        super().__init__(drawing)
        for child in list(self.root):
            self.root.remove(child)
        self.root.attrib.pop("id", None)
        self.root.attrib |= {"class": "chart", "role": "img", "aria-label": drawing.label}

    def add_styles(self) -> None:
        """None: the page's own apply."""

    def add_scripts(self) -> None:
        """None."""

    def sweep(self) -> None:
        """Take out what pygal leaves for its scripts, and what says a number twice."""
        self.graph.nodes["graph"].set("class", "graph")
        for parent in list(self.root.iter()):
            for child in list(parent):
                empty = child.tag == "g" and not len(child)
                twice = child.tag == "title" and parent.get("class", "").endswith("guides")
                if empty or twice or child.get("class") == "plot tooltip-overlay":
                    parent.remove(child)
