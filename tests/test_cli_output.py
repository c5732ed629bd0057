"""What commands print fits where it is read: a terminal's width, a pipe's lines, a program's JSON."""

import io
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from typing import Any

import click
import pytest

from autoscaler.cli.output import ago, as_object, count, instant, length, print_fields, print_json, print_table
from autoscaler.supply import Supply
from tests.build import NOW, at, policy

TITLES = ["ID", "POLICY", "SENTENCE"]
LONG = (
    'hold at 12: "sessions" wants 15 (5873 at 400 each), 3 already in flight, would buy 2 but cooldown until 18:10:00Z'
)
ROWS = [("9", "edge-a", "short"), ("10", "edge-beijing", LONG)]


class Terminal(io.StringIO):
    """A standard output that somebody watches."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was printed, without colours."""
        return [line.rstrip() for line in click.unstyle(self.getvalue()).splitlines()]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The lines printed into a pipe so far."""
    return lambda: capsys.readouterr().out.splitlines()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """Makes standard output a terminal of so many columns."""

    def of(columns: int) -> Terminal:
        stdout = Terminal()
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.delenv("NO_COLOR", raising=False)
        return stdout

    return of


def test_into_a_pipe_goes_one_plain_line_a_row(printed: Callable[[], list[str]]) -> None:
    print_table(TITLES, ROWS, prose=True)
    assert printed() == [
        "ID  POLICY        SENTENCE",
        " 9  edge-a        short",
        f"10  edge-beijing  {LONG}",
    ]


def test_a_wide_terminal_shows_prose_beside_its_row(terminal: Callable[[int], Terminal]) -> None:
    stdout = terminal(200)
    print_table(TITLES, ROWS, prose=True)
    assert stdout.lines() == [
        "ID  POLICY        SENTENCE",
        " 9  edge-a        short",
        f"10  edge-beijing  {LONG}",
    ]


def test_prose_wraps_in_its_column_while_that_is_wide_enough(terminal: Callable[[int], Terminal]) -> None:
    stdout = terminal(80)
    print_table(TITLES, ROWS, prose=True)
    lines = stdout.lines()
    assert lines[2].startswith('10  edge-beijing  hold at 12: "sessions" wants 15')
    assert lines[3].startswith(" " * 18 + "in flight, would")
    assert max(map(len, lines)) <= 80


def test_on_a_narrow_terminal_prose_stands_below_its_row(terminal: Callable[[int], Terminal]) -> None:
    stdout = terminal(50)
    print_table(TITLES, ROWS, prose=True)
    lines = stdout.lines()
    assert lines[:4] == ["ID  POLICY", " 9  edge-a", "    short", "10  edge-beijing"]
    assert lines[4].startswith('    hold at 12: "sessions"')
    assert max(map(len, lines)) <= 50


def test_colours_are_for_terminals(terminal: Callable[[int], Terminal], printed: Callable[[], list[str]]) -> None:
    rows = [("1", "blocked")]
    print_table(["ID", "OUTCOME"], rows)
    assert "\x1b" not in "".join(printed())
    stdout = terminal(80)
    print_table(["ID", "OUTCOME"], rows)
    assert "\x1b[33mblocked" in stdout.getvalue()


@pytest.mark.parametrize(
    ("cells", "shown"),
    [
        pytest.param(["7", "-", "12"], [" 7", " -", "12"], id="numbers, and where there is none"),
        pytest.param(["3 of 5", "12 of 12"], ["3 of 5", "12 of 12"], id="a text is not a number"),
        pytest.param(["-", "-"], ["-", "-"], id="nothing but missing values"),
    ],
)
def test_numbers_stand_to_the_right(cells: list[str], shown: list[str], printed: Callable[[], list[str]]) -> None:
    print_table(["N"], [[cell] for cell in cells])
    assert printed()[1:] == shown


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[red]no markup[/red] :smile: [1]", id="what the library would take for markup"),
        pytest.param("质量 ok", id="wide characters"),
    ],
)
def test_text_is_shown_as_it_is(text: str, printed: Callable[[], list[str]]) -> None:
    print_table(["TEXT"], [[text]], prose=True)
    print_fields([("text", text)])
    assert printed() == ["TEXT", text, f"text  {text}"]


def test_a_foreign_message_cannot_steer_a_terminal(printed: Callable[[], list[str]]) -> None:
    print_table(["TEXT"], [["gone\x1b[2Jwith\nit\r\x07"]])
    assert printed() == ["TEXT", "gone [2Jwith it"]


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        pytest.param(timedelta(0), "0s", id="nothing"),
        pytest.param(timedelta(milliseconds=999), "0s", id="less than a second"),
        pytest.param(timedelta(seconds=-3), "0s", id="below nothing, by two clocks"),
        pytest.param(timedelta(seconds=200), "3m20s", id="minutes keep their seconds"),
        pytest.param(timedelta(hours=2, minutes=5, seconds=9), "2h5m", id="hours drop them"),
        pytest.param(timedelta(days=3, hours=4, minutes=59), "3d4h", id="days drop minutes"),
        pytest.param(timedelta(days=90, hours=4), "90d", id="weeks drop hours"),
    ],
)
def test_a_length_of_time_says_what_matters(duration: timedelta, said: str) -> None:
    assert length(duration) == said


def test_an_instant_is_in_utc_and_its_distance_in_words() -> None:
    assert instant(NOW) == "2026-06-01 12:00:00Z"
    assert ago(at(minutes=-5), NOW) == "5m ago"
    assert ago(at(minutes=5), NOW) == "in 5m"


@pytest.mark.parametrize(
    ("number", "noun", "said"), [(0, "error", "0 errors"), (1, "policy", "1 policy"), (2, "policy", "2 policies")]
)
def test_a_number_of_things(number: int, noun: str, said: str) -> None:
    assert count(number, noun) == said


@pytest.mark.parametrize(
    ("value", "form"),
    [
        pytest.param(NOW, "2026-06-01T12:00:00Z", id="an instant"),
        pytest.param(at(milliseconds=120), "2026-06-01T12:00:00.12Z", id="an instant and a fraction"),
        pytest.param(timedelta(minutes=90), "1h30m", id="a duration, as policies write it"),
        pytest.param(Fraction(5873), 5873, id="a whole number"),
        pytest.param(Fraction(1, 4), 0.25, id="a fraction"),
        pytest.param((1, 2), [1, 2], id="a tuple"),
    ],
)
def test_values_have_one_form_in_json(value: object, form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"value": value})
    assert json.loads(capsys.readouterr().out) == {"v": 1, "value": form}


def test_an_object_has_what_it_computes_too() -> None:
    supply = Supply(3, 1, 2, 0, 0, 0, 0, 0, 6, False)
    assert as_object(supply).items() >= {"serving": 3, "in_flight": 3, "total": 6}.items()


def test_a_policy_in_json_names_where_its_password_is_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"policy": policy()})
    worker = json.loads(capsys.readouterr().out)["policy"]["worker"]
    assert worker["login_password"] == {"env": "EDGE_LOGIN_PASSWORD"}
