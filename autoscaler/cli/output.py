"""What commands print: tables for people, JSON for programs, and instants and numbers in words.

A table on a terminal keeps to its width: the prose in its last column wraps, or moves below its row where the terminal
is narrow. Into a pipe goes one line a row, plainly aligned and without colours, for grep and awk.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

json_option = click.option("--json", "as_json", is_flag=True, help='Print JSON, with "v": 1, for programs.')

NOTHING = "-"  # in the cell of a value that there is not

_GAP = 2  # columns between two cells
_INDENT = 4
_LEAST_PROSE = 40  # columns; with less beside its row, prose stands below it
_PIPE_WIDTH = 100_000  # a pipe has no width; rich wants one
_STYLES = {
    "scale_out": "green",
    "fulfilled": "green",
    "blocked": "yellow",
    "rejected": "yellow",
    "expired": "yellow",
    "failed": "red",
    "unknown": "red",
}


class WrittenFile(click.Path):
    """An option's file to be written, in a folder that is there: that it is not is told before the work, not after."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path. A usage error where no file can be made there."""
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if not path.parent.is_dir():
            self.fail(f"{path} cannot be written: there is no folder {path.parent}", param, ctx)
        return path


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, prose: bool = False, numbers: bool = False
) -> None:
    """Print rows under titles; a column of counts stands on the right of its place.

    ``prose``: the last column is text to wrap; every other cell stays on its line. ``numbers``: all columns but the
    first are numbers, whatever stands beside them.
    """
    cells = [[_printable(cell) for cell in row] for row in rows]
    click.echo(_table(_console(), titles, cells, prose, numbers), nl=False)


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, the values aligned; a long one wraps on a terminal."""
    from rich.table import Table

    console = _console()
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(_text(name), _text(_printable(value)))
    click.echo("".join(f"{line}\n" for line in _lines(console, grid)), nl=False)


def print_json(content: Mapping[str, Any]) -> None:
    """Print an object, in the first version of its form."""
    click.echo(json.dumps({"v": 1, **content}, default=_as_json, indent=2, ensure_ascii=False))


def json_line(content: Mapping[str, Any]) -> str:
    """An object on one line, in the first version of its form."""
    return json.dumps({"v": 1, **content}, default=_as_json, ensure_ascii=False)


def columns_shown() -> int:
    """Columns that a line may have: the terminal's, and for a pipe as good as any."""
    return _console().width


def as_object(value: object) -> dict[str, Any]:
    """A dataclass as a JSON object: its fields, and what it computes from them as properties."""
    named = [field.name for field in fields(value)]  # type: ignore[arg-type]  # the caller has a dataclass
    computed = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
    return {name: getattr(value, name) for name in (*named, *computed)}


def instant(at: datetime) -> str:
    """An instant for people, in UTC."""
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def length(duration: timedelta) -> str:
    """How long, to what matters at that length: ``12s``, ``3m20s``, ``2h5m``, ``3d4h``, ``90d``."""
    from autoscaler.duration import format_duration

    for least, grain in (
        (timedelta(weeks=1), timedelta(days=1)),
        (timedelta(days=1), timedelta(hours=1)),
        (timedelta(hours=1), timedelta(minutes=1)),
        (timedelta(0), timedelta(seconds=1)),
    ):
        if duration >= least:
            return format_duration(duration // grain * grain)
    return format_duration(timedelta(0))


def ago(at: datetime, now: datetime) -> str:
    """How far an instant is from ``now``: ``3m20s ago``, ``in 2h5m``."""
    return f"{length(now - at)} ago" if at <= now else f"in {length(at - now)}"


def count(number: int, noun: str) -> str:
    """``1 error``, ``2 errors``; a noun in -y is no exception: ``2 policies``."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def _table(console: "Console", titles: Sequence[str], rows: list[list[str]], prose: bool, numbers: bool) -> str:
    from rich.cells import cell_len
    from rich.padding import Padding
    from rich.table import Table

    firm = len(titles) - prose
    widths = [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
    left = console.width - sum(widths[:firm]) - _GAP * firm
    below = prose and left < min(_LEAST_PROSE, widths[-1])
    shown = firm if below else len(titles)
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for number, title in enumerate(titles[:shown]):
        column = {row[number] for row in rows} - {NOTHING}
        is_count = (numbers and number > 0) or (bool(column) and all(cell.isdigit() for cell in column))
        wraps = prose and number == firm
        table.add_column(
            title, justify="right" if is_count else "left", no_wrap=not wraps, overflow="fold" if wraps else "ellipsis"
        )
    for row in rows:
        table.add_row(*(_text(cell) for cell in row[:shown]))
    lines = _lines(console, table)
    if below:
        header, *rest = lines
        lines = [header]
        for line, row in zip(rest, rows, strict=True):
            lines += [line, *_lines(console, Padding(_text(row[-1]), (0, 0, 0, _INDENT)))]
    return "".join(f"{line}\n" for line in lines)


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(width=_PIPE_WIDTH, color_system=None, force_terminal=False)


def _lines(console: "Console", renderable: "RenderableType") -> list[str]:
    with console.capture() as capture:
        console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def _text(cell: str) -> "RenderableType":
    from rich.text import Text

    # The word alone, or the word and a remark: "accepted", "accepted (imagined)".
    return Text(cell, style=_STYLES.get(cell.partition(" (")[0], ""))


def _printable(text: str) -> str:
    # Messages of the cloud and of Prometheus come this far: none may move a terminal's cursor.
    return "".join(character if character.isprintable() else " " for character in text)


def _as_json(value: object) -> object:
    from pydantic import BaseModel

    match value:
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"
        case timedelta():
            from autoscaler.duration import format_duration

            return format_duration(value)
        case Fraction():
            return value.numerator if value.denominator == 1 else float(value)
        case BaseModel():
            return value.model_dump(mode="json", exclude_none=True)
        case _ if is_dataclass(value):
            return as_object(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no form in JSON")
