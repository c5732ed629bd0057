"""Recorded load for ``simulate``: out of a file, or out of each policy's own Prometheus, with progress on the way."""

import os
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from math import nan
from pathlib import Path

from autoscaler.cli.failure import Exit, fail
from autoscaler.controller import CAPACITY_MAX_AGE
from autoscaler.model import Gap, GapReason, Question
from autoscaler.policy import Policy, PrometheusServer, Schedule, Setpoint
from autoscaler.prometheus import Course
from autoscaler.settings import Settings
from autoscaler.simulation import Load
from autoscaler.simulation.grid import READY, Unusable, load_of, over
from autoscaler.simulation.recorded import MOST_TICKS, Extent, RecordingError, read_csv
from autoscaler.wiring import outside


@dataclass(frozen=True, slots=True)
class Wanted:
    """What load is asked for."""

    step: timedelta | None  # None: each policy's evaluate_every
    ready: int | None  # workers of then, where nothing else says
    start_at: datetime | None = None
    end_at: datetime | None = None  # not included


class Progress:
    """One line on standard error that says how far long work has come; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._told = ""

    def tell(self, what: str, done: int, whole: int) -> None:
        """Replace the line."""
        line = f"{what}: {100 * done // max(whole, 1)} %"
        if self._shown and line != self._told:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()
            self._told = line

    def end(self) -> None:
        """Take the line away."""
        if self._told:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._told = ""


@contextmanager
def progress_line() -> Iterator[Progress]:
    """A line of progress that is taken away in the end, however that comes."""
    progress = Progress()
    try:
        yield progress
    finally:
        progress.end()


def loads_of_file(path: Path, policies: Sequence[Policy], wanted: Wanted, progress: Progress) -> list[Load]:
    """The load of each policy, in a file; the command fails where it has none."""
    try:
        return read_csv(
            path,
            policies,
            step=wanted.step,
            ready=wanted.ready,
            extent=Extent(wanted.start_at, wanted.end_at),
            progress=lambda done, whole: progress.tell(f"reading {path.name}", done, whole),
        )
    except RecordingError as error:
        progress.end()
        fail(Exit.NO, f"this load cannot be simulated:\n{_indented(str(error))}")


def loads_of_prometheus(
    policies: Sequence[Policy],
    servers: Mapping[str, PrometheusServer],
    settings: Settings,
    wanted: Wanted,
    progress: Progress,
) -> list[Load]:
    """The load of each policy, as its own Prometheus has it; the command fails where it cannot be had.

    Policies that ask the same of the same server, as variants do, ask it once. ``wanted`` has a start and an end.
    """
    assert wanted.start_at is not None
    asked: dict[tuple[str, timedelta], dict[Question, None]] = {}
    for policy in policies:
        questions = dict.fromkeys(question for _, question in _questions(policy))
        asked.setdefault((policy.prometheus, wanted.step or policy.evaluate_every), {}).update(questions)
    answers: dict[tuple[str, timedelta], dict[Question, Course | Gap]] = {}
    asking = outside(settings, os.environ)
    try:
        clients = asking.servers.named(servers)
        for (server, step), questions in asked.items():
            ticks = _ticks(wanted, step)
            if ticks > MOST_TICKS:
                progress.end()
                fail(Exit.USAGE, f"that is {ticks:,} evaluations, more than {MOST_TICKS:,}: give a longer --step")
            told = partial(progress.tell, f"reading Prometheus {server}")
            courses = clients[server].read_course(list(questions), wanted.start_at, step, ticks, told)
            answers[server, step] = dict(zip(questions, courses, strict=True))
    finally:
        asking.close()
    progress.end()
    return [_load(policy, answers, wanted) for policy in policies]


def _load(
    policy: Policy, answers: Mapping[tuple[str, timedelta], Mapping[Question, Course | Gap]], wanted: Wanted
) -> Load:
    assert wanted.start_at is not None
    step = wanted.step or policy.evaluate_every
    columns: dict[str, array[float]] = {}
    said: list[str] = []
    for name, question in _questions(policy):
        course = answers[policy.prometheus, step][question]
        if isinstance(course, Gap):
            status = Exit.NO if course.reason is GapReason.BAD_QUERY else Exit.OUTSIDE
            fail(status, f"Prometheus {policy.prometheus}: {course.reason}: {course.detail} ({question.query})")
        columns[name] = course.values if name != READY else _counts(course.values)
        if course.gaps:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(course.gaps.items()))
            said.append(f'gaps of "{name}": {reasons}')
    try:
        return load_of(
            policy,
            columns,
            start_at=wanted.start_at,
            step=step,
            ticks=_ticks(wanted, step),
            ready=wanted.ready,
            source=f"Prometheus {policy.prometheus}",
            assumed=said,
        )
    except Unusable as problem:
        fail(Exit.NO, f"{policy.name}: {problem}")


def _ticks(wanted: Wanted, step: timedelta) -> int:
    """Evaluations from the start up to the end."""
    assert wanted.start_at is not None
    assert wanted.end_at is not None
    return -((wanted.start_at - wanted.end_at) // step)


def _counts(values: "array[float]") -> "array[float]":
    """Numbers of workers; what is none is a gap, as it is for the daemon."""
    return array("d", [value if value >= 0 and value.is_integer() else nan for value in values])


def _questions(policy: Policy) -> Iterator[tuple[str, Question]]:
    """Column and question: what an evaluation asks."""
    for check in policy.checks:
        if isinstance(check, Schedule):
            continue
        yield check.name, Question(check.query, check.max_age)
        if isinstance(check, Setpoint) and check.over is not None:
            yield over(check.name), Question(check.over, check.max_age)
    if policy.capacity.query is not None:
        yield READY, Question(policy.capacity.query, CAPACITY_MAX_AGE)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
