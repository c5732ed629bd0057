"""Charts: what a page inlines is drawing alone, and says the same however many points it was drawn from."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.charts import MOST_POINTS, Band, Curve, Mark, chart, thinned

START = datetime(2026, 6, 1, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def at(**units: float) -> datetime:
    return START + timedelta(**units)


DAY = at(days=1)


def drawn(*curves: Curve, end: datetime = DAY, **options: object) -> ElementTree.Element:
    text = chart(curves, start_at=START, end_at=end, label="load against capacity", **options)  # type: ignore[arg-type]
    return ElementTree.fromstring(text)


def texts(drawing: ElementTree.Element, axis: str) -> list[str]:
    [group] = [node for node in drawing.iter(f"{SVG}g") if (node.get("class") or "").startswith(f"axis {axis}")]
    return [node.text or "" for node in group.iter(f"{SVG}text")]


def shapes(drawing: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [node for node in drawing.iter() if name in (node.get("class") or "").split()]


HOSTILE = "</title></svg><script>alert(1)</script>\"'&"


def test_nothing_in_it_acts_or_reaches_out() -> None:
    text = chart(
        [Curve("load", [(START, 1.0), (at(hours=1), 2.0)])],
        start_at=START,
        end_at=at(days=1),
        label=HOSTILE,
        bands=[Band("short", START, at(hours=1), HOSTILE)],
        marks=[Mark("bought", at(hours=2), HOSTILE)],
    )
    drawing = ElementTree.fromstring(text)
    tags = {node.tag.removeprefix(SVG) for node in drawing.iter()}
    assert tags <= {"svg", "g", "rect", "path", "text", "title"}
    names = {name for node in drawing.iter() for name in node.attrib}
    assert names <= {"class", "role", "aria-label", "viewBox", "x", "y", "width", "height", "transform", "d"}
    assert "<!--" not in text
    assert [node.text for node in drawing.iter(f"{SVG}title")] == [HOSTILE, HOSTILE]
    assert drawing.get("aria-label") == HOSTILE


def test_equal_arguments_give_equal_text() -> None:
    curve = Curve("load", [(START, 1.0), (at(hours=1), 2.0)], filled=True)
    first, second = (chart([curve], start_at=START, end_at=at(days=1), label="load") for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("length", "width", "expected"),
    [
        pytest.param(timedelta(minutes=2), 400, ["00:00:30", "00:01:00", "00:01:30"], id="two minutes"),
        pytest.param(timedelta(hours=6), 340, ["02:00", "04:00"], id="six hours on a phone"),
        pytest.param(timedelta(days=2), 340, ["12:00", "2 Jun", "12:00"], id="a day is named at its midnight"),
        pytest.param(timedelta(days=30), 400, ["8 Jun", "15 Jun", "22 Jun", "29 Jun"], id="weeks begin on Mondays"),
        pytest.param(timedelta(days=365), 400, ["Jul", "Oct", "2027", "Apr"], id="months, and years by their number"),
        pytest.param(timedelta(days=3650), 400, ["2028", "2030", "2032", "2034"], id="years"),
    ],
)
def test_the_time_axis_has_round_instants_that_fit(length: timedelta, width: int, expected: list[str]) -> None:
    assert texts(drawn(Curve("load", [(START, 1.0)]), end=START + length, width=width), "x") == expected


@pytest.mark.parametrize(
    ("greatest", "expected"),
    [
        pytest.param(7, ["0", "2", "4", "6", "8"], id="workers"),
        pytest.param(40, ["0", "10", "20", "30", "40"], id="a round number is the top"),
        pytest.param(96_000, ["0", "50k", "100k"], id="thousands"),
        pytest.param(1_300_000, ["0", "0.5M", "1.0M", "1.5M"], id="millions, in one unit"),
        pytest.param(0.31, ["0", "0.1", "0.2", "0.3", "0.4"], id="ratios"),
        pytest.param(0, ["0", "1"], id="nothing but zero"),
    ],
)
def test_the_axis_of_values_begins_at_zero_and_has_round_numbers(greatest: float, expected: list[str]) -> None:
    assert texts(drawn(Curve("load", [(START, float(greatest)), (at(hours=1), 0.0)])), "y") == expected


def test_a_gap_is_left_blank() -> None:
    points = [(at(hours=hour), None if 8 <= hour < 12 else 5.0) for hour in range(24)]
    assert len(shapes(drawn(Curve("load", points)), "curve")) == 2


def test_a_step_holds_until_the_next() -> None:
    [path] = shapes(drawn(Curve("capacity", [(START, 5.0), (at(hours=12), 10.0)], stepped=True)), "curve")
    heights = [float(pair.split()[1]) for pair in (path.get("d") or "").removeprefix("M").split("L")]
    assert heights[0] == heights[1] > heights[2]


def test_bands_and_marks_stand_at_their_instants_and_are_cut_at_the_edges() -> None:
    drawing = drawn(
        Curve("load", [(START, 1.0)]),
        bands=[Band("short", at(hours=-5), at(hours=12), "short"), Band("short", at(hours=13), at(hours=13), "brief")],
        marks=[Mark("bought", at(hours=6), "bought 3")],
    )
    plot = float(shapes(drawing, "background")[1].get("width") or 0)
    first, brief = shapes(drawing, "band")
    assert (float(first.get("x") or -1), float(first.get("width") or 0)) == (0.0, pytest.approx(plot / 2, abs=0.1))
    assert float(brief.get("width") or 0) >= 1  # or nobody would see it
    [mark] = shapes(drawing, "mark")
    assert float(re.split("[M ]", mark.get("d") or "")[1]) == pytest.approx(plot / 4, abs=0.1)


def test_bands_of_one_look_are_not_drawn_over_each_other_which_would_be_darker() -> None:
    brief = [Band("short", at(seconds=10 * n), at(seconds=10 * n + 5), "short") for n in range(100)]
    drawing = drawn(Curve("load", [(START, 1.0)]), bands=[*brief, Band("frozen", START, at(hours=1), "frozen")])
    shorts = [band for band in shapes(drawing, "band") if "short" in (band.get("class") or "")]
    edges = [(float(band.get("x") or 0), float(band.get("width") or 0)) for band in shorts]
    assert 2 < len(edges) < 100
    assert all(x + width <= after + 0.02 for (x, width), (after, _) in pairwise(edges))
    assert len(shapes(drawing, "band")) == len(shorts) + 1  # another look stands beside them


def test_without_a_point_it_says_so() -> None:
    [said] = shapes(drawn(), "no_data")
    assert said.text == "no data"
    assert shapes(drawn(Curve("load", [(START, None)])), "no_data")


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9)), min_size=1, max_size=3000), st.booleans())
def test_thinning_keeps_the_extremes_the_order_and_the_limit(values: list[float | None], stepped: bool) -> None:
    points = [(at(minutes=minute), value) for minute, value in enumerate(values)]
    kept = thinned(points, stepped=stepped)
    assert set(kept) <= set(points)
    assert [instant for instant, _ in kept] == sorted(instant for instant, _ in kept)
    assert len(kept) <= (MOST_POINTS // 2 if stepped else MOST_POINTS)
    numbers, left = [v for v in values if v is not None], [v for _, v in kept if v is not None]
    assert (min(left, default=None), max(left, default=None)) == (
        min(numbers, default=None),
        max(numbers, default=None),
    )
    if stepped and values[-1] is not None:
        assert kept[-1] == points[-1]
