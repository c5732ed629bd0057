"""Recorded load out of CSV files: a time, and a column for each check by its name.

The first column is the time, as unix seconds or as ISO 8601; ``<check>.over`` is how many workers a mean covered then,
and ``ready`` how many carried load. An empty cell is a gap. Lines above the first that begin with # are remarks. A file
is read in one pass, whatever its length: what is kept is the grid of evaluations, where each value holds until the next
row.
"""

import csv
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, pairwise
from math import inf, isfinite, nan
from pathlib import Path
from statistics import median
from typing import Final, TextIO

from autoscaler.duration import format_duration
from autoscaler.policy import Policy, Schedule
from autoscaler.policy.document import Problem
from autoscaler.simulation.grid import Unusable, columns_of, load_of
from autoscaler.simulation.load import Load

MOST_TICKS: Final = 10_000_000
"""Evaluations of one simulation: nearly ten years of every 30 s, and 80 MB for each check."""

Progress = Callable[[int, int], None]
"""Told the bytes read and the bytes there are, now and then."""

_MOST_PROBLEMS: Final = 20  # told of one file
_LOOKED_AT: Final = 1000  # rows that say how far apart rows are
_HOLDS: Final = 2.5  # times that distance: a value holds no longer, as an evaluation forgives no longer hole
_TELL_EVERY: Final = 50_000  # rows
_MILLISECONDS: Final = 1e11  # seconds beyond the year 5000 are milliseconds of today; before 1970 nothing was recorded
_NO_NUMBERS: Final = frozenset({"", "nan", "null", "none", "-"})


class RecordingError(Exception):
    """A recording that cannot be simulated, with every problem found, each by its line."""

    def __init__(self, problems: Sequence[Problem], further: int = 0) -> None:
        lines = [str(problem) for problem in problems]
        if further:
            lines.append(f"and {further:,} more like these")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Extent:
    """What of a recording is simulated."""

    start_at: datetime | None = None  # None: from its first row on
    end_at: datetime | None = None  # not included; None: to its last row


def read_csv(
    path: Path,
    policies: Sequence[Policy],
    *,
    step: timedelta | None = None,
    ready: int | None = None,
    extent: Extent = Extent(),
    progress: Progress | None = None,
) -> list[Load]:
    """The load of each of ``policies``, recorded in one file.

    ``step`` takes the place of each policy's evaluate_every; ``ready`` is how many workers there were where the file
    does not say. Raises RecordingError.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_fifo()):  # a device may never end
            raise _refused(path, "is not a file", "name a CSV file")
        size = path.stat().st_size
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return _Reading(path, policies, step, ready, extent).run(stream, size, progress)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}", "name a CSV file that may be read") from None
    except UnicodeDecodeError:
        raise _refused(path, "is not UTF-8 text", "save it as CSV in UTF-8; unpack it first if it is packed") from None


class _Reading:
    """One file being read: its problems so far, and a grid for each time between evaluations."""

    def __init__(
        self, path: Path, policies: Sequence[Policy], step: timedelta | None, ready: int | None, extent: Extent
    ) -> None:
        self._path = path
        self._policies = policies
        self._step = step
        self._ready = ready
        self._extent = extent
        self._problems: list[Problem] = []
        self._further = 0
        self._zoneless = False

    def run(self, stream: TextIO, size: int, progress: Progress | None) -> list[Load]:
        rows = csv.reader(stream)
        try:
            names = self._header(
                next((row for row in rows if not (row and row[0].startswith("#"))), None), rows.line_num
            )
            loads = self._loads(names, _counted(rows, stream, size, progress))
        except csv.Error as error:
            raise _refused(self._path, f"is not CSV: {error}", "write a row a line", rows.line_num) from None
        if self._problems:
            raise RecordingError(self._problems, self._further)
        return loads

    # The first line

    def _header(self, row: list[str] | None, line: int) -> dict[str, int]:
        """The columns that some policy reads, by name, out of the first line that is no comment."""
        if not row or not any(cell.strip() for cell in row):
            raise _refused(self._path, "is empty", "write a first line with time and the checks, then a line a row")
        names = [cell.strip() for cell in row]
        if len(names) == 1:
            stand = next((mark for mark, sign in (("semicolons", ";"), ("tabs", "\t")) if sign in names[0]), None)
            what = f"has its columns apart by {stand}" if stand else "has a single column"
            raise _refused(self._path, what, "put commas between time and values", line)
        for index, name in enumerate(names[1:], 1):
            if name and name in names[1:index]:
                self._report(line, name, "is the name of two columns", "keep one of them")
        if self._is_number(names[0]):
            raise _refused(self._path, "begins with a value", "write a first line: time, and the names of checks", line)
        known = {name for policy in self._policies for name in columns_of(policy)}
        found = {name: index for index, name in enumerate(names) if index and name in known}
        queried = {
            check.name for policy in self._policies for check in policy.checks if not isinstance(check, Schedule)
        }
        if not queried & found.keys() and queried:
            others = ", ".join(filter(None, names[1:6])) or "no others"
            what = f"has no column for {' or '.join(sorted(queried)[:6])}, only {others}"
            raise _refused(self._path, what, "name a column in its first line like the check", line)
        self._unread = [name for name in names[1:] if name and name not in known]
        return found

    # The rows

    def _loads(self, names: Mapping[str, int], rows: Iterator[tuple[int, list[str]]]) -> list[Load]:
        parsed = self._parsed(names, rows)
        first = list(islice(parsed, _LOOKED_AT))
        if not first:
            if not self._problems:
                raise _refused(self._path, "has no rows", "write a line for each instant")
            return []
        apart = median(later - earlier for (earlier, _), (later, _) in pairwise(first)) if len(first) > 1 else 0.0
        steps = {policy.name: self._step or policy.evaluate_every for policy in self._policies}
        grids = {step: _Grid(first[0][0], step, apart, len(names)) for step in set(steps.values())}
        for at, values in chain(first, parsed):
            if self._problems:
                continue  # the rest is read for its problems alone
            for grid in grids.values():
                if not grid.add(at, values):
                    self._report(None, "", *_too_many(first[0][0], at, grid.step))
                    return []
        return [] if self._problems else self._cut(names, {step: grid.end() for step, grid in grids.items()}, apart)

    def _cut(self, names: Mapping[str, int], grids: "Mapping[timedelta, _Grid]", apart: float) -> list[Load]:
        loads = []
        for policy in self._policies:
            step = self._step or policy.evaluate_every
            grid = grids[step]
            mine = columns_of(policy)
            columns = {name: grid.columns[index] for index, name in enumerate(names) if name in mine}
            queried = [check.name for check in policy.checks if not isinstance(check, Schedule)]
            if queried and not names.keys() & set(queried):
                what = f"has no column for {' or '.join(queried[:6])} of {policy.name}"
                self._report(None, "", what, "add one, or leave the policy out")
                continue
            try:
                loads.append(
                    load_of(
                        policy,
                        columns,
                        start_at=grid.start_at,
                        step=step,
                        ticks=grid.ticks,
                        ready=self._ready,
                        source=self._path.name,
                        assumed=self._assumed(policy, names, step, apart),
                    )
                )
            except Unusable as problem:
                self._report(None, problem.field, problem.what, problem.mend)
        return loads

    def _assumed(self, policy: Policy, names: Mapping[str, int], step: timedelta, apart: float) -> list[str]:
        """What the file does not say, a sentence each."""
        said = []
        rows = timedelta(seconds=apart)
        if rows > step:
            said.append(f"each value holds until the next row, {format_duration(rows)} later")
        elif timedelta(0) < rows < step:
            said.append(f"of the rows every {format_duration(rows)} the newest at each evaluation counts")
        if self._zoneless:
            said.append("times without a zone are in UTC")
        missing = [c.name for c in policy.checks if not isinstance(c, Schedule) and c.name not in names]
        said += [f'"{name}" has no column: it has no reading' for name in missing]
        if self._unread:
            said.append(f"no check is called {', '.join(self._unread[:6])}: not read")
        return said

    def _parsed(
        self, names: Mapping[str, int], rows: Iterator[tuple[int, list[str]]]
    ) -> Iterator[tuple[float, list[float]]]:
        """Unix seconds and the values of the columns read, row by row."""
        begin = -inf if self._extent.start_at is None else self._extent.start_at.timestamp()
        end = inf if self._extent.end_at is None else self._extent.end_at.timestamp()
        indices, before, width, inside = list(names.values()), -inf, max(names.values(), default=0), False
        outside = 0
        for line, row in rows:
            if not row:
                continue
            at = self._time(row[0], line)
            if at is None:
                continue
            if at <= before:
                self._disorder(line, at, before)
                continue
            before = at
            if len(row) <= width:
                self._report(line, "", f"has {len(row)} of the columns", "give each row as many as the first line")
                continue
            if not begin <= at < end:
                outside += 1
                continue
            inside = True
            try:
                values = [float(row[index]) for index in indices]
            except ValueError:
                values = [self._value(row[index], name, line) for name, index in names.items()]
            yield at, values
        if outside and not inside and not self._problems:
            self._report(None, "", "has no row from --from to --to", f"its last row is at {_instant(before)}")

    def _time(self, cell: str, line: int) -> float | None:
        try:
            seconds = float(cell)
        except ValueError:
            try:
                at = datetime.fromisoformat(cell.strip())
            except ValueError:
                mend = "write unix seconds, or 2026-06-01T18:00:00Z"
                self._report(line, "time", f"{_shown(cell)} is not a time", mend)
                return None
            if at.tzinfo is None:
                self._zoneless = True
                at = at.replace(tzinfo=UTC)
            if not 0 <= at.timestamp() < _MILLISECONDS:
                self._report(line, "time", f"{_shown(cell)} is not of our age", "write when the row was recorded")
                return None
            return at.timestamp()
        if not 0 <= seconds < _MILLISECONDS:
            mend = "divide it by 1000, if it is in milliseconds" if 0 < seconds < inf else "write unix seconds"
            self._report(line, "time", f"{_shown(cell)} is not a time in seconds", mend)
            return None
        return seconds

    def _value(self, cell: str, name: str, line: int) -> float:
        text = cell.strip()
        if text.lower() in _NO_NUMBERS:
            return nan
        try:
            return float(text)
        except ValueError:
            mend = "write a number, or leave it empty where there is a gap"
            self._report(line, name, f"{_shown(cell)} is not a number", mend)
            return nan

    def _disorder(self, line: int, at: float, before: float) -> None:
        if at == before:
            self._report(line, "time", f"{_instant(at)} is there twice", "keep one row for each instant")
        else:
            what = f"{_instant(at)} comes after {_instant(before)}"
            self._report(line, "time", what, "sort the rows, the oldest first")

    @staticmethod
    def _is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    def _report(self, line: int | None, field: str, what: str, mend: str) -> None:
        if len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(Problem(str(self._path), line, None, field, what, mend))
        else:
            self._further += 1


class _Grid:
    """Evaluations from the first row on, a step apart; at each the newest row's values, where they still hold."""

    def __init__(self, start: float, step: timedelta, apart: float, columns: int) -> None:
        self.start_at = datetime.fromtimestamp(start, UTC)
        self.step = step
        self.columns = [array("d") for _ in range(columns)]
        self._start = start
        self._seconds = step.total_seconds()
        self._holds = max(apart * _HOLDS, self._seconds)
        self.ticks = 0
        self._next = start  # the first instant not filled yet
        self._newest: tuple[float, list[float]] | None = None

    def add(self, at: float, values: list[float]) -> bool:
        """Take a row, later than all before it. False: too many evaluations lie before it."""
        if at > self._next and not self._fill(at):
            return False
        self._newest = at, values
        return True

    def end(self) -> "_Grid":
        """It, with the last row in place."""
        if self._newest is not None:
            self._fill(self._newest[0] + self._seconds / 2, inclusive=True)
        return self

    def _fill(self, until: float, inclusive: bool = False) -> bool:
        """Fill the evaluations before ``until``; those up to the newest row, where that is the last."""
        if self._newest is None:
            return True
        since, values = self._newest
        last = since if inclusive else until
        ticks = int((last - self._start) / self._seconds) + 1
        if not inclusive and self._start + (ticks - 1) * self._seconds >= until:
            ticks -= 1
        new = ticks - self.ticks
        if new <= 0:
            return True
        if ticks > MOST_TICKS:
            return False
        held = min(new, max(0, int((since + self._holds - self._start) / self._seconds) + 1 - self.ticks))
        for column, value in zip(self.columns, values, strict=True):
            if held == 1 == new:
                column.append(value if isfinite(value) else nan)
            else:
                column.extend([value if isfinite(value) else nan] * held)
                column.extend([nan] * (new - held))
        self.ticks = ticks
        self._next = self._start + ticks * self._seconds
        return True


def _counted(
    rows: Iterator[list[str]], stream: TextIO, size: int, progress: Progress | None
) -> Iterator[tuple[int, list[str]]]:
    """The rows with their lines' numbers, telling how far the file has been read."""
    raw = stream.buffer
    for number, row in enumerate(rows):
        yield rows.line_num, row  # type: ignore[attr-defined]  # they are a csv.reader
        if progress is not None and number % _TELL_EVERY == 0:
            progress(min(raw.tell(), size), size)
    if progress is not None:
        progress(size, size)


def _too_many(start: float, at: float, step: timedelta) -> tuple[str, str]:
    between = f"from {_instant(start)} to {_instant(at)}"
    what = f"are more than {MOST_TICKS:,} evaluations at {format_duration(step)}"
    return f"{between} {what}", "give a longer --step, or a shorter time by --from and --to"


def _refused(path: Path, what: str, mend: str, line: int | None = None) -> RecordingError:
    return RecordingError([Problem(str(path), line, None, "", what, mend)])


def _instant(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g}"


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:40] + "…")
