"""The chart for terminals: what was needed, what served, and what was short, column by column."""

import re
from array import array
from datetime import UTC, datetime, timedelta

import click
import pytest

from autoscaler.cli.candidates import Candidate
from autoscaler.cli.course_chart import course_chart
from autoscaler.simulation import Load, simulate
from autoscaler.simulation.figures import figures, needed
from tests.build import policy

START = datetime(2026, 6, 1, tzinfo=UTC)


def drawn(loads: list[float], ready: int, width: int = 30) -> list[str]:
    frozen = policy(maximum=ready)  # buys nothing
    load = Load(START, timedelta(minutes=1), len(loads), {"sessions": array("d", loads)})
    simulation = simulate(frozen, load, ready=ready)
    needs = needed(frozen, load)
    candidate = Candidate("edge", "", frozen, simulation, figures(simulation), needs, "")
    return [click.unstyle(line) for line in course_chart(candidate, width)]


def columns(lines: list[str]) -> list[str]:
    """Each column from the bottom up."""
    rows = [line.partition("┤")[2] for line in lines if "┤" in line]
    return ["".join(row[n] for row in reversed(rows)).rstrip() for n in range(len(rows[0]))]


@pytest.mark.parametrize(
    ("load", "column"),
    [
        pytest.param(0, "░░░░░░░░", id="nothing needed, all to spare"),
        pytest.param(1600, "████░░░░", id="half of them needed"),
        pytest.param(3200, "████████", id="all of them needed"),
    ],
)
def test_a_column_is_what_load_needed_of_what_served(load: float, column: str) -> None:
    assert set(columns(drawn([load] * 20, ready=8))) == {column}


def test_what_was_short_stands_on_top() -> None:
    lines = drawn([6400.0] * 20, ready=8)
    assert set(columns(lines)) == {"████▓▓▓▓"}
    assert lines[0].startswith("    16 ┤")
    assert lines[4].startswith("     8 ┤")


def test_a_spike_is_seen_however_many_evaluations_a_column_holds() -> None:
    loads = [0.0] * 4000
    loads[2000] = 6400.0
    assert "████▓▓▓▓" in columns(drawn(loads, ready=8))


def test_one_evaluation_is_one_column() -> None:
    lines = drawn([400.0], ready=1)
    assert columns(lines) == ["████████"]
    assert re.fullmatch(r" {8}2026-06-01 00:00 {2,}2026-06-01 00:\d\d", lines[-1])


def test_nothing_at_all_is_drawn_too() -> None:
    assert set(columns(drawn([0.0] * 5, ready=0))) == {""}
