"""A ledger whose file is taken away, replaced, locked, or written by another program's schema, while it is in use."""

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import (
    BackupFailed,
    LedgerOutdated,
    LedgerTooNew,
    LedgerUnavailable,
    MarkName,
    SqlLedger,
    back_up,
    open_ledger,
    view_ledger,
)
from autoscaler.model import History, Override, Purchase
from autoscaler.purchase import Raced
from tests.build import CLUSTER_ID, NOW, at, capacity, facts, policy, purchase, workers

HOLDER = "daemon-1"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """A ledger in use, of a daemon that holds the cluster."""
    with closing(opened(path)) as ledger:
        ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
        yield ledger


def opened(path: Path) -> SqlLedger:
    return open_ledger(f"sqlite:///{path}", clock=lambda: NOW)


def intend(ledger: SqlLedger, nonce: str = "n-1", meanwhile: Callable[[], object] = lambda: None) -> Purchase:
    def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        meanwhile()
        known = facts(load=9999, history=history, capacity=capacity(workers(10)))
        return Evaluation(known, decide(known)), purchase(0, "intended", nonce=nonce, reserved_at=NOW, signed_at=NOW)

    _, made = ledger.reserve(policy(), NOW, HOLDER, propose)
    assert made is not None
    return made


def away(path: Path) -> Path:
    return path.with_name("away.db")


def take_away(path: Path) -> None:
    os.rename(path, away(path))


def replace_by_a_copy(path: Path) -> None:
    back_up(f"sqlite:///{path}", path.with_name("copy.db"), at(minutes=1))
    take_away(path)
    os.rename(path.with_name("copy.db"), path)


def replace_by_nothing(path: Path) -> None:
    take_away(path)
    path.touch()


TAKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "taken away": (take_away, r"the ledger's file .*ledger\.db is gone; put it back"),
    "replaced by a copy": (replace_by_a_copy, "another file was put in the place of the ledger"),
    "replaced by an empty file": (replace_by_nothing, "another file was put in the place of the ledger"),
}


@pytest.mark.parametrize(("take", "says"), TAKEN.values(), ids=TAKEN)
def test_while_its_file_is_not_there_nothing_is_read_reserved_or_sent(
    ledger: SqlLedger, path: Path, take: Callable[[Path], None], says: str
) -> None:
    made = intend(ledger)
    take(path)
    for use in (
        ledger.in_use,
        lambda: ledger.histories([policy()], NOW),
        lambda: ledger.lease(HOLDER, [CLUSTER_ID], MINUTE),
        lambda: ledger.begin_sending(made, HOLDER, NOW),
        lambda: intend(ledger, "n-2"),
    ):
        with pytest.raises(LedgerUnavailable, match=says):
            use()
    os.rename(away(path), path)
    assert ledger.begin_sending(made, HOLDER, NOW) is None
    assert [purchase.nonce for purchase in ledger.purchases()] == ["n-1"]


@pytest.mark.parametrize(("take", "says"), TAKEN.values(), ids=TAKEN)
def test_a_commit_to_a_file_that_was_taken_meanwhile_is_not_confirmed(
    ledger: SqlLedger, path: Path, take: Callable[[Path], None], says: str
) -> None:
    with pytest.raises(LedgerUnavailable, match=says):
        intend(ledger, meanwhile=lambda: take(path))


def log_of(path: Path) -> Path:
    return path.with_name("ledger.db-wal")


LOST_LOG = r"the ledger's log .*ledger\.db-wal was removed or replaced while it was in use; put it back"


@pytest.mark.parametrize("another", [False, True], ids=["taken away", "and another process began one"])
def test_while_its_log_is_not_there_nothing_is_reserved_or_sent(ledger: SqlLedger, path: Path, another: bool) -> None:
    made = intend(ledger)
    os.rename(log_of(path), away(path))
    if another:
        log_of(path).touch()
    for use in (
        lambda: ledger.lease(HOLDER, [CLUSTER_ID], MINUTE),
        lambda: ledger.begin_sending(made, HOLDER, NOW),
        lambda: intend(ledger, "n-2"),
    ):
        with pytest.raises(LedgerUnavailable, match=LOST_LOG):
            use()
    os.rename(away(path), log_of(path))
    assert ledger.begin_sending(made, HOLDER, NOW) is None
    assert [purchase.nonce for purchase in ledger.purchases()] == ["n-1"]


def test_a_connection_that_only_read_before_its_log_was_replaced_writes_nothing(ledger: SqlLedger, path: Path) -> None:
    with ledger._database.reading(), ledger._database.reading():
        """Two connections; one of them has never written."""
    with ledger._database.reading():
        os.rename(log_of(path), away(path))
        log_of(path).touch()
        with pytest.raises(LedgerUnavailable, match=LOST_LOG):
            intend(ledger)


def test_a_commit_to_a_log_that_was_taken_meanwhile_is_not_confirmed(ledger: SqlLedger, path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match=LOST_LOG):
        intend(ledger, meanwhile=lambda: os.rename(log_of(path), away(path)))


def test_a_daemon_that_ends_in_order_saves_what_a_removed_log_held(ledger: SqlLedger, path: Path) -> None:
    intend(ledger)
    log_of(path).unlink()
    ledger.close()
    with closing(opened(path)) as again:
        assert [purchase.nonce for purchase in again.purchases()] == ["n-1"]


def test_a_connection_of_its_own_for_each_thread_begins_no_file(ledger: SqlLedger, path: Path) -> None:
    take_away(path)
    raised: list[Exception] = []

    def use() -> None:
        try:
            ledger.latest()
        except LedgerUnavailable as error:
            raised.append(error)

    for _ in range(3):
        thread = Thread(target=use)
        thread.start()
        thread.join()
    assert (len(raised), path.exists()) == (3, False)


def test_a_daemon_that_is_started_on_the_copy_restores_it(ledger: SqlLedger, path: Path) -> None:
    intend(ledger)
    replace_by_a_copy(path)
    ledger.close()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    with closing(opened(path)) as again:
        restoral = again.take_up(at(hours=1))
        assert restoral is not None
        assert (restoral.at, restoral.copied_at) == (at(hours=1), at(minutes=1))
        assert [purchase.state for purchase in again.purchases()] == ["unknown"]


def test_a_lock_that_lasts_is_an_error_and_no_purchase(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoscaler.ledger.database.BUSY_SECONDS", 0.1)
    with closing(opened(path)) as ledger:
        ledger.lease(HOLDER, [CLUSTER_ID], MINUTE)
        made = intend(ledger)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailable, match="locked; another process is holding a write open"):
                ledger.begin_sending(made, HOLDER, NOW)
        assert ledger.begin_sending(made, HOLDER, NOW) is None


SCHEMAS = {"9999": LedgerTooNew, "0002": LedgerOutdated}


@pytest.mark.parametrize(("schema", "error"), SCHEMAS.items(), ids=["a newer program's", "an older program's"])
def test_another_schema_under_a_daemon_is_not_written_to(
    ledger: SqlLedger, path: Path, schema: str, error: type[Exception]
) -> None:
    made = intend(ledger)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE alembic_version SET version_num = ?", [schema])
        for use in (
            lambda: ledger.begin_sending(made, HOLDER, NOW),
            lambda: intend(ledger, "n-2"),
            lambda: ledger.lease(HOLDER, [CLUSTER_ID], MINUTE),
        ):
            with pytest.raises(error, match=schema):
                use()
        other.execute("UPDATE alembic_version SET version_num = '0004'")
    assert ledger.begin_sending(made, HOLDER, NOW) is None
    with pytest.raises(Raced):
        intend(ledger, "n-2")


def test_a_ledger_whose_tables_are_gone_is_named(ledger: SqlLedger, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DROP TABLE alembic_version")
    with pytest.raises(LedgerUnavailable, match="holds no ledger any more"):
        intend(ledger)


# Copies


def test_a_copy_is_not_written_over_what_is_there(ledger: SqlLedger, path: Path) -> None:
    target = path.with_name("copy.db")
    target.write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError):
        back_up(f"sqlite:///{path}", target, NOW)
    assert target.read_text(encoding="utf-8") == "precious"
    assert [file.name for file in path.parent.iterdir() if "unfinished" in file.name] == []


def test_a_copy_that_the_disk_does_not_take_leaves_nothing(ledger: SqlLedger, path: Path) -> None:
    target = path.with_name("copy.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
        with pytest.raises(BackupFailed, match=r"the copy .*copy\.db cannot be written: "):
            back_up(f"sqlite:///{path}", target, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {file.name for file in path.parent.iterdir()} == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}


def test_a_damaged_ledger_is_not_copied(ledger: SqlLedger, path: Path) -> None:
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'samples'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(BackupFailed, match="malformed"):
        back_up(f"sqlite:///{path}", path.with_name("copy.db"), NOW)


def test_a_copy_is_for_its_owner_alone(ledger: SqlLedger, path: Path) -> None:
    target = path.with_name("copy.db")
    back_up(f"sqlite:///{path}", target, NOW)
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in path.parent.iterdir() if "copy" in file.name) == ["copy.db"]


def test_a_copy_of_a_copy_says_when_it_was_made_itself(ledger: SqlLedger, path: Path) -> None:
    first, second = path.with_name("first.db"), path.with_name("second.db")
    back_up(f"sqlite:///{path}", first, at(minutes=1))
    back_up(f"sqlite:///{first}", second, at(minutes=2))
    with closing(view_ledger(f"sqlite:///{second}", clock=lambda: NOW)) as view:
        assert [(mark.name, mark.at) for mark in view.marks()] == [
            (MarkName.BACKUP, at(minutes=1)),
            (MarkName.BACKUP, at(minutes=2)),
        ]


def test_a_copy_by_hand_bears_no_mark(ledger: SqlLedger, path: Path) -> None:
    ledger.close()
    shutil.copy(path, path.with_name("copy.db"))
    with closing(opened(path.with_name("copy.db"))) as copy:
        assert copy.take_up(NOW) is None
