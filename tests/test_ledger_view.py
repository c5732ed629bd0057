"""A ledger that is only looked at: it shows what the daemon's shows, and leaves everything as it was."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import LedgerMissing, LedgerTooNew, LedgerUnavailable, SqlLedger, open_ledger, view_ledger
from autoscaler.model import Arrival, Inventory, Node, OverrideKind
from tests.build import CLUSTER_ID, NOW, at, capacity, cluster, facts, policy, purchase, workers


def clock() -> datetime:
    return NOW


@contextmanager
def opened(path: Path) -> Iterator[SqlLedger]:
    ledger = open_ledger(f"sqlite:///{path}", clock=clock)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def viewed(path: Path) -> Iterator[SqlLedger]:
    ledger = view_ledger(f"sqlite:///{path}", clock=clock)
    try:
        yield ledger
    finally:
        ledger.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with a decision and a purchase, which no daemon has open."""
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        buy(ledger)
    return path


def buy(ledger: SqlLedger) -> None:
    wish = purchase(0, "intended", signed_at=NOW, reserved_at=NOW)
    ledger.reserve(policy(), NOW, "daemon-1", lambda history, orders: (evaluation(), wish))


def evaluation(load: int = 4000, now: datetime = NOW) -> Evaluation:
    known = facts(load=load, now=now, capacity=capacity(workers(10)))
    return Evaluation(known, decide(known))


def digests(path: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()}


def look(when: datetime, *names: str, ready: bool = True) -> Inventory:
    nodes = tuple(Node(name, "ens.sn1.tiny", "Worker", ready, "running", at(days=-1), None) for name in names)
    return Inventory(CLUSTER_ID, when, cluster(), nodes, ())


def test_it_shows_what_the_ledger_holds_whether_the_daemon_is_up_or_down(path: Path) -> None:
    with viewed(path) as view:
        down = view.latest(), view.purchases(), view.histories([policy()], NOW)
    with opened(path) as ledger, viewed(path) as view:
        assert (view.latest(), view.purchases(), view.histories([policy()], NOW)) == down
        assert (ledger.latest(), ledger.purchases(), ledger.histories([policy()], NOW)) == down
        ledger.add_override(OverrideKind.FREEZE, ["*"], None, "ana", "derby", at(hours=-1), at(hours=1))
        assert view.overrides(NOW) == ledger.overrides(NOW) != ()


def test_it_leaves_every_file_as_it_was(path: Path) -> None:
    before = digests(path)
    with viewed(path) as view:
        view.record_look(look(NOW, "i-1"))
        view.latest()
    assert digests(path) == before


def test_a_look_is_worked_out_and_forgotten(path: Path) -> None:
    with viewed(path) as view:
        assert [worker.instance_id for worker in view.record_look(look(NOW, "i-1", "i-2"))] == ["i-1", "i-2"]
        assert view.workers(CLUSTER_ID) == ()


@given(
    st.lists(
        st.tuples(st.integers(0, 90), st.sets(st.sampled_from(["i-1", "i-2", "i-3"])), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_a_look_says_what_the_ledger_would_say_after_it(
    tmp_path_factory: pytest.TempPathFactory, looks: list[tuple[int, set[str], bool]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    with opened(path) as ledger, viewed(path) as view:
        buy(ledger)
        ledger.change(1, lambda bought: replace(bought, arrivals=(Arrival("i-2", NOW),)), NOW, "it came")
        for minutes, names, ready in looks:
            seen = look(at(minutes=minutes), *sorted(names), ready=ready)
            assert view.record_look(seen) == ledger.record_look(seen)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda view: view.record([evaluation(load=0, now=at(minutes=1))]), id="an evaluation"),
        pytest.param(
            lambda view: view.add_override(OverrideKind.FREEZE, ["*"], None, "ana", "why", NOW, at(hours=1)),
            id="an order",
        ),
        pytest.param(lambda view: view.lease("me", [CLUSTER_ID], at(hours=1) - NOW), id="a lease"),
        pytest.param(lambda view: view.change(1, lambda p: p, NOW, "why"), id="a purchase"),
    ],
)
def test_the_database_itself_refuses_what_would_write(path: Path, write: Callable[[Any], Any]) -> None:
    with viewed(path) as view, pytest.raises(LedgerUnavailable):
        write(view)


def test_a_ledger_that_is_not_there_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match=r"there is no ledger at .*/ledger\.db; `autoscaler run` begins one"):
        view_ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock=clock)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_is_no_ledger_and_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    with pytest.raises(LedgerMissing, match="holds no ledger yet"):
        view_ledger(f"sqlite:///{path}", clock=clock)
    assert path.stat().st_size == 0


def test_a_relative_path_is_taken_from_here(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    view = view_ledger("sqlite:///ledger.db", clock=clock)
    assert len(view.purchases()) == 1
    view.close()


def test_a_name_with_signs_of_an_address_is_a_name(path: Path) -> None:
    odd = path.with_name("a b?mode=rwc&c#d%20.db")
    os.rename(path, odd)
    database = str(odd).replace("%", "%25").replace("?", "%3F")
    view = view_ledger(f"sqlite:///{database}", clock=clock)
    assert len(view.purchases()) == 1
    view.close()


def test_another_programs_schema_is_not_guessed_at(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(LedgerTooNew, match="9999"):
        view_ledger(f"sqlite:///{path}", clock=clock)
