"""The commands on the ledger itself: copies, whether it is whole, and what follows a restoral."""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import time_machine
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import MarkName, SqlLedger, open_ledger
from autoscaler.model import OverrideKind, Purchase
from tests.build import NOW, at, capacity, facts, policy, purchase, workers

Run = Callable[..., Result]
ANA = ("--reason", "the console agrees", "--author", "ana")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy 100%?#.db"  # a name is a name


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """A ledger that the daemon has open, with a purchase, an order that was ended, and two decisions."""
    with closing(open_ledger(f"sqlite:///{path}", clock=lambda: NOW)) as ledger:
        buy(ledger, "n-1", "fulfilled")
        order = ledger.add_override(OverrideKind.CAP, ["edge"], 9, "ana", "derby", NOW, at(hours=2))
        ledger.end_override(order.id, "bob", "over", at(minutes=1))
        known = facts(policy(), 4000, now=at(minutes=1), capacity=capacity(workers(10)))
        ledger.record([Evaluation(known, decide(known))])
        yield ledger


def buy(ledger: SqlLedger, nonce: str, state: str) -> Purchase:
    known = facts(policy(), 5200, capacity=capacity(workers(10)))
    wish = purchase(0, "intended", nonce=nonce)
    _, made = ledger.reserve(policy(), NOW, "daemon-1", lambda *_: (Evaluation(known, decide(known)), wish))
    assert made is not None
    return ledger.change(made.id, lambda p: purchase(p.id, state, nonce=nonce), NOW, "answered")


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    """Runs a command five minutes after noon."""

    def invoke(*words: object, url: str = f"sqlite:///{path}") -> Result:
        return CliRunner().invoke(main, ["ledger", *map(str, words)], env={"AUTOSCALER_LEDGER": url})

    with time_machine.travel(at(minutes=5), tick=False):
        yield invoke


def damage(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def findings(result: Result) -> dict[str, str]:
    """What ``verify --json`` found wrong."""
    content = json.loads(result.stdout)
    assert content["v"] == 1
    assert content["whole"] == (result.exit_code == 0)
    return {each["check"]: each["says"] for each in content["findings"] if not each["ok"]}


# backup


def test_a_backup_holds_everything_and_says_that_it_is_one(ledger: SqlLedger, run: Run, copy: Path) -> None:
    result = run("backup", copy)
    assert (result.exit_code, result.output) == (0, f"Copied to {copy}.\n")
    with closing(
        open_ledger(f"sqlite:///{str(copy).replace('%', '%25').replace('?', '%3F')}", clock=lambda: NOW)
    ) as of:
        assert of.purchases() == ledger.purchases()
        assert of.decisions() == ledger.decisions()
        assert [(mark.name, mark.at) for mark in of.marks()] == [(MarkName.BACKUP, at(minutes=5))]
    assert ledger.marks() == ()
    assert [path.name for path in copy.parent.iterdir() if "unfinished" in path.name] == []


def test_a_backup_is_consistent_while_the_daemon_writes(ledger: SqlLedger, run: Run, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 2
        while not stop.is_set():
            buy(ledger, f"n-{number}", "fulfilled")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            assert run("backup", tmp_path / f"{number}.db").exit_code == 0
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        assert findings(run("verify", tmp_path / f"{number}.db", "--json")) == {}


def test_a_backup_overwrites_nothing(ledger: SqlLedger, run: Run, copy: Path) -> None:
    copy.write_text("precious", encoding="utf-8")
    result = run("backup", copy)
    assert (result.exit_code, "overwrites nothing" in result.output) == (2, True)
    assert copy.read_text(encoding="utf-8") == "precious"


def test_a_folder_that_is_not_there_is_named(ledger: SqlLedger, run: Run, tmp_path: Path) -> None:
    for command in ("backup", "export"):
        result = run(command, tmp_path / "no" / "copy")
        assert (result.exit_code, f"there is no folder {tmp_path / 'no'}" in result.output) == (2, True), result.output


def test_a_backup_that_fails_leaves_nothing(ledger: SqlLedger, run: Run, copy: Path, path: Path) -> None:
    damage(path, "CREATE TRIGGER t BEFORE INSERT ON marks BEGIN SELECT RAISE(ABORT, 'no'); END")
    result = run("backup", copy)
    assert (result.exit_code, "cannot be written: " in result.output) == (3, True)
    assert {each.name for each in copy.parent.iterdir()} <= {"ledger.db", "ledger.db-wal", "ledger.db-shm"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////no/such/ledger.db", "there is no ledger at /no/such/ledger.db"),
        ("sqlite:///{copy}", "file is not a database"),
    ],
    ids=["no ledger", "something else"],
)
def test_what_cannot_be_copied_is_said(run: Run, tmp_path: Path, url: str, says: str) -> None:
    (tmp_path / "photo.db").write_bytes(b"\x89PNG" * 500)
    result = run("backup", tmp_path / "copy.db", url=url.format(copy=tmp_path / "photo.db"))
    assert (result.exit_code, says in result.output) == (3, True)
    assert not (tmp_path / "copy.db").exists()


def test_of_a_ledger_in_postgresql_it_names_the_command_without_the_password(run: Run) -> None:
    url = "postgresql+psycopg://ana:hunter2secret@db:5433/ledger?sslmode=require&password=hunter2secret"
    result = run("backup", "/backup/my ledger.dump", url=url)
    assert result.exit_code == 2
    command = (
        "pg_dump --format=custom '--file=/backup/my ledger.dump' 'postgresql://ana@db:5433/ledger?sslmode=require'"
    )
    assert command in result.output
    assert "hunter2secret" not in result.output
    assert "autoscaler ledger restored" in result.output


# verify


def test_a_ledger_that_is_whole_is_called_so(ledger: SqlLedger, run: Run) -> None:
    result = run("verify")
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.output.splitlines()[1:]] == [
        ["ok", check]
        for check in (
            *("schema", "integrity_check", "foreign_key_check"),
            *("purchases", "nonces", "unresolved", "decisions"),
        )
    ]
    assert "2, replayed the same" in result.output


def test_so_is_a_backup(ledger: SqlLedger, run: Run, copy: Path) -> None:
    run("backup", copy)
    assert findings(run("verify", copy, "--json")) == {}


UNWHOLE: dict[str, tuple[list[str], str, str]] = {
    "a purchase whose state is no word of ours": (
        ["UPDATE purchases SET state = 'lost'"],
        "purchases",
        "1 cannot be read: 1 (LookupError)",
    ),
    "a nonce that was used twice": (
        ["DROP INDEX IF EXISTS one_nonce", "{again} UPDATE purchases SET nonce = 'n-1'"],
        "nonces",
        "1 used twice: n-1",
    ),
    "a cluster with two purchases of unknown outcome": (
        ["DROP INDEX one_open_purchase", "UPDATE purchases SET state = 'unknown'"],
        "unresolved",
        "1 has several: C1",
    ),
    "a purchase that is gone while others speak of it": (
        ["DELETE FROM purchases WHERE id = 1"],
        "foreign_key_check",
        "purchases",
    ),
    "a decision whose facts are no facts": (
        ["UPDATE decisions SET facts = x'00' WHERE id = 2"],
        "decisions",
        "1 cannot be read or come out otherwise: 2 (error)",
    ),
    "a decision that does not follow from its facts": (
        ["UPDATE decisions SET decision = replace(decision, 'hold', 'blocked') WHERE id = 2"],
        "decisions",
        "1 cannot be read or come out otherwise: 2 (outcome, sentence)",
    ),
}


@pytest.mark.parametrize(("statements", "check", "says"), UNWHOLE.values(), ids=UNWHOLE)
def test_what_is_wrong_is_named(
    ledger: SqlLedger, run: Run, path: Path, statements: list[str], check: str, says: str
) -> None:
    if check in ("nonces", "unresolved"):
        buy(ledger, "n-2", "fulfilled")
    ledger.close()
    if check == "nonces":
        without_unique_nonces(path)
        statements = ["UPDATE purchases SET nonce = 'n-1'"]
    damage(path, *statements)
    found = findings(run("verify", "--json"))
    assert says in found[check]
    assert "1" in run("verify").output


def without_unique_nonces(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'purchases'").fetchone()
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = ? WHERE name = 'purchases'", [sql.replace("UNIQUE (nonce)", "CHECK (1)")]
        )
        connection.execute("DELETE FROM sqlite_master WHERE name LIKE 'sqlite_autoindex_purchases%'")
        connection.execute(f"PRAGMA schema_version = {version + 1}")


def test_a_page_that_was_overwritten_is_found(ledger: SqlLedger, run: Run, path: Path) -> None:
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(os.urandom(4096))
    found = findings(run("verify", "--json"))
    assert found.keys() == {"integrity_check", "foreign_key_check", "decisions"} or "integrity_check" in found


@pytest.mark.parametrize("what", ["a photo", "a ledger of a newer program", "nothing"])
def test_a_file_that_cannot_be_read_is_not_whole(ledger: SqlLedger, run: Run, path: Path, what: str) -> None:
    ledger.close()
    if what == "a photo":
        path.write_bytes(b"\x89PNG" * 500)
    elif what == "nothing":
        path.write_bytes(b"")
    else:
        damage(path, "UPDATE alembic_version SET version_num = '9999'")
    result = run("verify", path)
    assert (result.exit_code, "failed" in result.output) == (1, True)


def test_a_ledger_that_is_not_there_is_an_outside_failure(run: Run) -> None:
    assert run("verify").exit_code == 3
    assert run("verify", "/no/such/file.db").exit_code == 2


# export


def lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert {each["v"] for each in found} == {1}
    return found


def test_everything_about_money_is_exported_line_by_line(ledger: SqlLedger, run: Run) -> None:
    result = run("export")
    assert result.exit_code == 0
    exported = lines(result.output)
    assert [(each["type"], each.get("id")) for each in exported] == [
        ("purchase", 1),
        ("purchase_event", None),
        ("purchase_event", None),
        ("override", 1),
        ("override_end", None),
        ("decision", 1),
        ("decision", 2),
    ]
    bought, _, ended, order, end, first, second = exported
    assert (bought["nonce"], bought["arrived"], ended["purchase_id"], ended["after"]) == ("n-1", 3, 1, "fulfilled")
    assert (order["kind"], end["override_id"], end["author"], end["reason"]) == ("cap", 1, "bob", "over")
    assert (first["purchase_id"], first["outcome"], second["purchase_id"]) == (1, "scale_out", None)


def test_into_a_new_file_if_one_is_named(ledger: SqlLedger, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    assert (run("export", file).exit_code, run("export", file).exit_code) == (0, 2)
    assert len(lines(file.read_text(encoding="utf-8"))) == 7


# restored and reviewed


def test_a_person_says_that_it_was_restored_and_that_it_is_whole(ledger: SqlLedger, run: Run) -> None:
    result = run("reviewed", *ANA)
    assert (result.exit_code, "was not restored" in result.output) == (1, True)
    assert run("restored", *ANA).exit_code == 0
    restored = ledger.restoral(at(minutes=6))
    assert restored is not None
    assert (restored.at, restored.copied_at) == (at(minutes=5), None)
    result = run("reviewed", *ANA)
    assert (result.exit_code, "2026-06-01 12:05:00Z" in result.output) == (0, True)
    assert ledger.restoral(at(minutes=6)) is None
    assert [(mark.name.value, mark.author, mark.reason) for mark in ledger.marks()] == [
        ("restored", "ana", "the console agrees"),
        ("reviewed", "ana", "the console agrees"),
    ]


@pytest.mark.parametrize("command", ["restored", "reviewed"])
def test_a_persons_word_needs_a_reason_and_begins_no_ledger(run: Run, path: Path, command: str) -> None:
    assert run(command, "--author", "ana").exit_code == 2
    assert run(command, *ANA).exit_code == 3
    assert not path.exists()
