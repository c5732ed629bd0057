"""A chart of a simulation for a terminal: the workers that load needed against those that served."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import click

from autoscaler.cli.candidates import Candidate

_ROWS = 8
_SERVES, _SHORT, _SPARE = "█", "▓", "░"


def course_chart(candidate: Candidate, width: int) -> Iterator[str]:
    """Lines, the highest first. A column is a stretch of time: the most that load needed in it, the fewest that served.

    █ is load that was carried, ▓ load that was short of workers, ░ workers to spare.
    """
    wants, serves = _columns(candidate, max(20, width - 10))
    top = max(*wants, *serves, 1)
    step = top / _ROWS
    for row in range(_ROWS, 0, -1):
        low, high = (row - 1) * step, row * step
        cells = [_cell(want, serve, low, high) for want, serve in zip(wants, serves, strict=True)]
        label = f"{high:.0f}" if row in (_ROWS, _ROWS // 2) else ""
        yield f"{label:>6} ┤" + "".join(_painted(cells))
    load = candidate.simulation.load
    begin, end = f"{load.start_at:%Y-%m-%d %H:%M}", f"{load.end_at:%Y-%m-%d %H:%M}"
    yield f"{'':8}{begin}  {end.rjust(len(wants) - len(begin) - 2)}"


def _columns(candidate: Candidate, width: int) -> tuple[list[int], list[int]]:
    load, levels, takes = candidate.simulation.load, candidate.simulation.levels, candidate.needs
    width = min(width, load.ticks)
    bounds = [load.ticks * number // width for number in range(width + 1)]
    wants, serves, level = [], [], 0
    for start, end in pairwise(bounds):
        wants.append(max(takes[start:end]))
        fewest = levels[level].serving
        while level + 1 < len(levels) and levels[level + 1].at < load.at(end - 1) + load.step:
            level += 1
            fewest = min(fewest, levels[level].serving)
        serves.append(fewest)
    return wants, serves


def _cell(want: int, serve: int, low: float, high: float) -> str:
    middle = (low + high) / 2
    if want >= middle:
        return _SERVES if serve >= middle or want <= serve else _SHORT
    return _SPARE if serve >= middle else " "


def _painted(cells: Sequence[str]) -> Iterator[str]:
    """The cells, with colour where click lets it through."""
    for cell, alike in groupby(cells):
        text = "".join(alike)
        yield click.style(text, fg="red") if cell == _SHORT else click.style(text, dim=True) if cell == _SPARE else text
