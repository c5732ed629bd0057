"""Recorded load out of CSV files: what a row means on the grid of evaluations, and an answer to every bad file."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import isnan
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy import Policy
from autoscaler.simulation.grid import ready_at_start
from autoscaler.simulation.load import Load
from autoscaler.simulation.recorded import Extent, RecordingError, read_csv
from tests.build import per_worker, policy, schedule, setpoint, steps

START = datetime(2026, 6, 1, 18, 0, tzinfo=UTC)
SECONDS = int(START.timestamp())
NO = None  # no reading


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "load.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, *policies: Policy, **options: object) -> Load:
    [load] = read_csv(write(folder, text), policies or (policy(),), **options)  # type: ignore[arg-type]
    return load


def values(load: Load, name: str = "sessions") -> list[float | None]:
    return [None if isnan(value) else value for value in load.series[name]]


def rows(*cells: str, every: int = 30, header: str = "time,sessions") -> str:
    lines = [f"{SECONDS + number * every},{cell}" for number, cell in enumerate(cells)]
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(rows("1", "2", "3"), [1, 2, 3], id="a row for each evaluation"),
        pytest.param(rows("1", "2", every=60), [1, 1, 2], id="a value holds until the next row"),
        pytest.param(rows("1", "2", "3", "4", every=15), [1, 3], id="of several rows the newest counts"),
        pytest.param(rows("1"), [1], id="one point is one evaluation"),
        pytest.param(rows("1", "", "NaN", "inf", "4"), [1, NO, NO, NO, 4], id="what is no number is a gap"),
        pytest.param(rows("1", " 2 ", "-3", "4e2"), [1, 2, -3, 400], id="numbers in every form"),
        pytest.param("﻿" + rows("1", "2"), [1, 2], id="a byte order mark is no part of a name"),
        pytest.param(rows("1", "2").replace("\n", "\r\n"), [1, 2], id="lines end as in Windows"),
        pytest.param(rows("1", "2") + "\n\n", [1, 2], id="empty lines"),
        pytest.param(
            "when,sessions\n2026-06-01T18:00:00Z,1\n2026-06-01T20:00:30+02:00,2\n", [1, 2], id="ISO times, any zone"
        ),
        pytest.param("# one, two\n# three\n" + rows("1", "2"), [1, 2], id="remarks above the first line"),
        pytest.param("t,other,sessions\n0,x,1\n30,y,2\n", [1, 2], id="other columns may hold anything"),
        pytest.param(
            f"t,sessions\n{SECONDS},1\n{SECONDS + 30},2\n{SECONDS + 60},3\n{SECONDS + 300},4\n",
            [1, 2, 3, 3, 3, NO, NO, NO, NO, NO, 4],
            id="beyond two and a half distances of rows a value is too old",
        ),
    ],
)
def test_rows_become_evaluations(tmp_path: Path, text: str, expected: list[float | None]) -> None:
    assert values(read(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", "load.csv: is empty", id="nothing"),
        pytest.param("time,sessions\n", "load.csv: has no rows", id="a first line alone"),
        pytest.param("0,1\n30,2\n", "load.csv:1: begins with a value", id="no first line"),
        pytest.param("# mine\n0,1\n30,2\n", "load.csv:2: begins with a value", id="no first line below a remark"),
        pytest.param("time;sessions\n0;1\n", "load.csv:1: has its columns apart by semicolons", id="semicolons"),
        pytest.param("time\tsessions\n0\t1\n", "load.csv:1: has its columns apart by tabs", id="tabs"),
        pytest.param("sessions\n1\n", "load.csv:1: has a single column", id="no time"),
        pytest.param("time,value\n0,1\n", "load.csv:1: has no column for sessions, only value", id="another's names"),
        pytest.param("time,sessions,sessions\n0,1,2\n", "load.csv:1: sessions: is the name of two columns", id="twice"),
        pytest.param("time,sessions\nnoon,1\n", "load.csv:2: time: 'noon' is not a time", id="no time at all"),
        pytest.param("time,sessions\n1700000000000,1\n", "divide it by 1000", id="milliseconds"),
        pytest.param("time,sessions\nnan,1\n", "load.csv:2: time: 'nan' is not a time in seconds", id="a time of NaN"),
        pytest.param(
            "time,sessions\n-62135596800,1\n", "'-62135596800' is not a time in seconds", id="long ago, in seconds"
        ),
        pytest.param("time,sessions\n0001-01-01,1\n", "load.csv:2: time: '0001-01-01' is not of our age", id="year 1"),
        pytest.param("time,sessions\n9999-12-31T23:59:59Z,1\n", "is not of our age", id="the last second there is"),
        pytest.param("time,sessions\n0001-01-01T00:00+05:00,1\n", "is not of our age", id="before the first second"),
        pytest.param(
            rows("1,1e30", header="t,sessions,ready"), "ready: 1e+30 is more than 100,000 workers", id="workers galore"
        ),
        pytest.param("time,sessions\n0,many\n", "load.csv:2: sessions: 'many' is not a number", id="a word"),
        pytest.param('time,sessions\n0,"1,000"\n', "load.csv:2: sessions: '1,000' is not a number", id="a thousand"),
        pytest.param("time,sessions\n0,1\n0,2\n", "load.csv:3: time: 1970-01-01T00:00:00Z is there twice", id="twin"),
        pytest.param(
            "time,sessions\n30,1\n0,2\n",
            "load.csv:3: time: 1970-01-01T00:00:00Z comes after 1970-01-01T00:00:30Z",
            id="unsorted",
        ),
        pytest.param("time,sessions\n0\n", "load.csv:2: has 1 of the columns", id="a short row"),
        pytest.param("time,sessions\n0,1\n1700000000,2\n", "more than 10,000,000 evaluations at 30s", id="fifty years"),
        pytest.param(b"time,sessions\n0,\xff\n", "is not UTF-8 text", id="bytes that are no text"),
        pytest.param(b"\x1f\x8b\x08\x00\x00", "is not UTF-8 text", id="packed"),
        pytest.param("time,sessions\n0,\x00\n", "load.csv:2: sessions: '\\x00' is not a number", id="a zero byte"),
        pytest.param("time,sessions\n0," + "9" * 200_000, "is not CSV: field larger than field limit", id="huge"),
    ],
)
def test_a_bad_file_gets_a_clear_answer(tmp_path: Path, text: str | bytes, problem: str) -> None:
    with pytest.raises(RecordingError) as refusal:
        read(tmp_path, text)
    assert problem in str(refusal.value)
    assert all(each.mend for each in refusal.value.problems)


def test_every_problem_is_told_at_once_up_to_a_measure(tmp_path: Path) -> None:
    with pytest.raises(RecordingError) as refusal:
        read(tmp_path, rows("1", "x", "3", "y") + "soon,5\n")
    assert [problem.line for problem in refusal.value.problems] == [3, 5, 6]
    with pytest.raises(RecordingError, match=r"\nand 1,980 more like these"):
        read(tmp_path, rows(*["x"] * 2000))


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing.csv", "cannot be read: No such file"), (".", "is not a file"), ("/dev/zero", "is not a file")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(RecordingError, match=problem):
        read_csv(tmp_path / name, [policy()])


def test_a_policy_that_the_file_says_nothing_of_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, rows("1", "2"))
    queue = policy(name="transcode", checks=(steps((100, 1)),))
    with pytest.raises(RecordingError, match="has no column for queue of transcode; add one, or leave the policy out"):
        read_csv(path, [policy(), queue])


def test_a_schedule_alone_needs_no_column(tmp_path: Path) -> None:
    load = read(tmp_path, rows("x", "y", header="time,other"), policy(checks=(schedule(),)))
    assert (load.ticks, load.series) == (2, {})


def test_a_step_of_ones_own_takes_the_place_of_the_policys(tmp_path: Path) -> None:
    load = read(tmp_path, rows("1", "2", "3", "4", "5"), step=timedelta(minutes=1))
    assert (values(load), load.step, load.start_at) == ([1, 3, 5], timedelta(minutes=1), START)


def test_an_extent_leaves_out_what_lies_beyond(tmp_path: Path) -> None:
    extent = Extent(START + timedelta(seconds=30), START + timedelta(seconds=90))
    load = read(tmp_path, rows("1", "2", "3", "4", "5"), extent=extent)
    assert (values(load), load.start_at) == ([2, 3], START + timedelta(seconds=30))
    with pytest.raises(RecordingError, match="has no row from --from to --to; its last row is at 2026-06-01T18:02:00Z"):
        read(tmp_path, rows("1", "2", "3", "4", "5"), extent=Extent(START + timedelta(days=1)))


def test_each_policy_gets_its_own_columns_and_its_own_pace(tmp_path: Path) -> None:
    path = write(tmp_path, rows("1,10", "2,20", "3,30", header="time,sessions,queue"))
    slow = policy(name="slow", checks=(steps((100, 1)),), evaluate_every=timedelta(minutes=1))
    first, second = read_csv(path, [policy(), slow])
    assert (list(first.series), values(first)) == (["sessions"], [1, 2, 3])
    assert (list(second.series), values(second, "queue")) == (["queue"], [10, 30])


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    both = policy(checks=(per_worker(), steps((100, 1)), schedule()))
    text = "time,sessions,colour\n2026-06-01T18:00,1,red\n2026-06-01T19:00,,red\n2026-06-01T20:00,3,red\n"
    assert read(tmp_path, text, both, step=timedelta(minutes=30)).assumed == (
        "each value holds until the next row, 1h later",
        "times without a zone are in UTC",
        '"queue" has no column: it has no reading',
        "no check is called colour: not read",
        '"sessions" has no reading at 2 of 5 evaluations',
    )


# A mean says nothing without the workers it was taken over.

MEAN = policy(checks=(setpoint(),))


def test_a_mean_becomes_a_load_by_the_workers_it_covered(tmp_path: Path) -> None:
    text = rows("0.65,13,20", "0.9,10,20", "0.9,,20", header="time,utilization,utilization.over,ready")
    load = read(tmp_path, text, MEAN)
    assert values(load, "utilization") == [8.45, 9.0, NO]
    assert (
        '"utilization" is a mean: its load is the mean × the workers of then, as utilization.over says' in load.assumed
    )


@pytest.mark.parametrize(
    ("text", "ready", "expected"),
    [
        pytest.param(rows("0.5,10", "0.5,20", header="t,utilization,ready"), None, [5, 10], id="of the column ready"),
        pytest.param(rows("0.5,10", "0.5,0", header="t,utilization,ready"), None, [5, NO], id="over nobody is a gap"),
        pytest.param(rows("0.5", "0.25", header="t,utilization"), 12, [6, 3], id="of a number given"),
        pytest.param(rows("1e300", "1", header="t,utilization"), 10**9, [NO, 1e9], id="beyond all measure is a gap"),
    ],
)
def test_the_workers_of_then(tmp_path: Path, text: str, ready: int | None, expected: list[float | None]) -> None:
    assert values(read(tmp_path, text, MEAN, ready=ready), "utilization") == expected


@pytest.mark.parametrize(
    ("text", "ready", "problem"),
    [
        pytest.param(rows("0.5", header="t,utilization"), None, "utilization: is a mean, and nothing says", id="none"),
        pytest.param(rows("0.5", header="t,utilization"), 0, "is said to be over no workers", id="0 ready"),
        pytest.param(rows("0.5,-1", header="t,utilization,ready"), None, "ready: -1 is not a number", id="below 0"),
        pytest.param(rows("0.5,1.5", header="t,utilization,ready"), None, "ready: 1.5 is not a number", id="half one"),
    ],
)
def test_without_the_workers_of_then_a_mean_is_refused(
    tmp_path: Path, text: str, ready: int | None, problem: str
) -> None:
    with pytest.raises(RecordingError, match=problem):
        read(tmp_path, text, MEAN, ready=ready)


def test_who_says_how_many_workers_there_are_at_the_start(tmp_path: Path) -> None:
    told = read(tmp_path, rows("1,", "2,7", header="t,sessions,ready"))
    silent = read(tmp_path, rows("1", "2"))
    assert ready_at_start(policy(), told, 3) == (3, "as --ready says")
    assert ready_at_start(policy(), told, None) == (7, "as recorded")
    assert ready_at_start(policy(minimum=2), silent, None)[0] == 2


def test_progress_is_told_by_bytes(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    text = rows(*["1"] * 120_000, every=1)
    read(tmp_path, text, progress=lambda done, size: told.append((done, size)))
    assert len(told) == 4
    assert told == sorted(told)
    assert told[-1] == (len(text), len(text))


@given(
    st.lists(st.tuples(st.integers(1, 200), st.one_of(st.none(), st.integers(0, 10**6))), min_size=1, max_size=60),
    st.integers(1, 120),
)
def test_each_evaluation_has_the_newest_row_that_still_holds(
    tmp_path_factory: pytest.TempPathFactory, recorded: list[tuple[int, int | None]], step: int
) -> None:
    times, at = [], 0
    for distance, _ in recorded:
        times.append(at)
        at += distance
    cells = ["" if value is None else str(value) for _, value in recorded]
    text = "t,sessions\n" + "".join(f"{time},{cell}\n" for time, cell in zip(times, cells, strict=True))
    load = read(tmp_path_factory.mktemp("csv"), text, step=timedelta(seconds=step))
    apart = sorted(later - earlier for earlier, later in pairwise(times)) or [0]
    middle = len(apart) // 2
    usual = apart[middle] if len(apart) % 2 else (apart[middle - 1] + apart[middle]) / 2
    expected = []
    for instant in range(0, times[-1] + 1, step):
        newest = max(index for index, time in enumerate(times) if time <= instant)
        holds = instant - times[newest] <= max(2.5 * usual, step)
        expected.append(recorded[newest][1] if holds else None)
    assert values(load) == expected


@given(st.binary(max_size=300))
def test_whatever_the_file_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = write(tmp_path_factory.mktemp("csv"), b"time,sessions\n" + content)
    with suppress(RecordingError):  # and nothing else is raised
        [load] = read_csv(path, [policy()])
        assert load.ticks >= 1
