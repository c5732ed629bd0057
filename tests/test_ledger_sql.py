"""What only a ledger in a database can get wrong: its schema, its file, its errors and its growth."""

import json
import resource
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, event

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import LedgerError, LedgerTooNew, LedgerUnavailable, SqlLedger, open_ledger
from autoscaler.ledger.migrate import SCHEMA
from autoscaler.ledger.tables import metadata
from autoscaler.model import Arrival, CheckReading, History, Inventory, Node, Override, Purchase, Reading
from tests.build import CLUSTER_ID, NOW, at, capacity, cluster, facts, policy, purchase, workers

HOLDER = "daemon-1"
NODE = Node("i-1", "ens.sn1.tiny", "Worker", True, "running", at(days=-1), None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@contextmanager
def opened(file: Path) -> Iterator[SqlLedger]:
    with closing(open_ledger(f"sqlite:///{file}", clock=lambda: NOW)) as ledger:
        yield ledger


@pytest.fixture
def ledger(file: Path) -> Iterator[SqlLedger]:
    with opened(file) as ledger:
        yield ledger


def evaluation(load: int = 4000, now: datetime = NOW) -> Evaluation:
    known = facts(policy(), load, now=now, capacity=capacity(workers(10)))
    return Evaluation(known, decide(known))


def intend(ledger: SqlLedger, nonce: str = "n") -> Purchase:
    wish = purchase(0, "intended", nonce=nonce)
    _, made = ledger.reserve(policy(), NOW, HOLDER, lambda history, orders: (evaluation(9999), wish))
    assert made is not None
    return made


def count(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        return number


# Schema


def test_the_migrations_make_the_tables(ledger: SqlLedger, file: Path) -> None:
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA
    engine.dispose()


def test_a_newer_schema_is_refused_and_left_alone(file: Path) -> None:
    with opened(file) as ledger:
        intend(ledger)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(LedgerTooNew, match="9999"):
        open_ledger(f"sqlite:///{file}", clock=lambda: NOW)
    assert count(file, "purchases") == 1


def test_daemons_that_start_at_once_on_a_new_file_do_not_collide(file: Path) -> None:
    code = (
        "import sys; from datetime import UTC, datetime; from autoscaler.ledger import open_ledger;"
        "sys.stdin.readline(); open_ledger(sys.argv[1], clock=lambda: datetime.now(UTC)).close()"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{file}"]
    root = Path(__file__).parents[1]
    daemons = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root) for _ in range(4)]
    for daemon in daemons:
        assert daemon.stdin is not None
        daemon.stdin.write(b"go\n")
        daemon.stdin.flush()
    said = [daemon.communicate(timeout=50)[1].decode() for daemon in daemons]
    assert [daemon.returncode for daemon in daemons] == [0] * 4, said
    with opened(file) as ledger:
        assert ledger.latest() == {}


# The file


def test_a_restart_forgets_nothing(file: Path) -> None:
    with opened(file) as ledger:
        made = intend(ledger)
        ledger.change(made.id, lambda p: purchase(p.id, "accepted", nonce="n"), NOW, "answered")
        ledger.record([evaluation(now=at(minutes=1))])
        ledger.record_look(Inventory(CLUSTER_ID, NOW, cluster(), (NODE,), ()))
        before = [ledger.purchases(), ledger.latest(), ledger.decisions(), ledger.workers(CLUSTER_ID)]
        history = ledger.histories([policy()], NOW)
    with opened(file) as ledger:
        assert [ledger.purchases(), ledger.latest(), ledger.decisions(), ledger.workers(CLUSTER_ID)] == before
        assert ledger.histories([policy()], NOW) == history
        assert intend(ledger, "m").id > made.id


def test_the_file_is_written_ahead_and_synced(ledger: SqlLedger, file: Path) -> None:
    found: dict[str, object] = {}

    def watch(_: object, cursor: sqlite3.Cursor, *__: object) -> None:
        for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout"):
            found[pragma] = cursor.connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    event.listen(Engine, "before_cursor_execute", watch)
    try:
        intend(ledger)
    finally:
        event.remove(Engine, "before_cursor_execute", watch)
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_readers_wait_for_no_writer_and_see_only_what_is_committed(file: Path) -> None:
    with opened(file) as writer, opened(file) as reader:

        def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
            assert reader.purchases() == ()
            assert reader.histories([policy()], NOW)["edge"] == history
            return evaluation(9999), purchase(0, "intended")

        writer.reserve(policy(), NOW, HOLDER, propose)
        assert len(reader.purchases()) == 1


def test_a_commit_the_disk_does_not_take_is_an_error_and_no_purchase(ledger: SqlLedger, file: Path) -> None:
    first = intend(ledger)
    ledger.change(first.id, lambda p: purchase(p.id, "accepted", nonce="n"), NOW, "answered")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = file.with_name("ledger.db-wal").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        with pytest.raises(LedgerUnavailable):
            intend(ledger, "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [purchase.nonce for purchase in ledger.purchases()] == ["n"]
    intend(ledger, "m")


# Errors


def unopenable(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'no-such-folder' / 'ledger.db'}"


def something_else(tmp_path: Path) -> str:
    (tmp_path / "photo.db").write_bytes(b"\x89PNG" * 500)
    return f"sqlite:///{tmp_path / 'photo.db'}"


@pytest.mark.parametrize(
    ("url", "why", "mend"),
    [
        (unopenable, "unable to open", "its folder exists"),
        (something_else, "not a database", "put a backup in its place"),
        (lambda _: "sqlite://", "in memory", "sqlite:///path"),
        (lambda _: "sqlite:///:memory:", "in memory", "sqlite:///path"),
        (lambda _: "mysql://root@localhost/x", "mysql", "sqlite:///path"),
        (lambda _: "ledger.db", "not the address", "sqlite:///path"),
    ],
    ids=["no folder", "not a database", "memory", "memory by name", "another database", "a bare file name"],
)
def test_what_cannot_be_used_is_said_with_its_mend(tmp_path: Path, url: object, why: str, mend: str) -> None:
    assert callable(url)
    with pytest.raises(LedgerUnavailable) as raised:
        open_ledger(url(tmp_path), clock=lambda: NOW)
    assert why in raised.value.why
    assert mend in raised.value.mend
    assert str(raised.value) == f"{raised.value.why}; {raised.value.mend}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://autoscaler:hunter2secret@127.0.0.1:1/ledger",
        "postgresql+psycopg://autoscaler@127.0.0.1:1/ledger?password=hunter2secret",
        "postgresql+psycopg://autoscaler:hunter2secret@/ledger?host=/no/hunter2secret",
        "postgresql+psycopg://autoscaler:hunter2secret@127.0.0.1:port/ledger",
        "postgresql+psycopg:/autoscaler:hunter2secret@127.0.0.1/ledger",
        "mysql://root:hunter2secret@localhost/x",
        "hunter2secret",
    ],
)
def test_a_password_is_in_no_error(url: str) -> None:
    with pytest.raises(LedgerUnavailable) as raised:
        open_ledger(url, clock=lambda: NOW)
    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2secret" not in f"{error!r} {error}"
        error = error.__cause__


def test_a_file_that_may_not_be_written_is_an_error(ledger: SqlLedger, file: Path) -> None:
    url = f"sqlite:///file:{file}?mode=ro&uri=true"
    with closing(open_ledger(url, clock=lambda: NOW)) as reader:
        assert reader.latest() == {}
        with pytest.raises(LedgerUnavailable, match="let this user write"):
            intend(reader)


def test_a_row_that_breaks_a_rule_of_the_schema_is_no_race(ledger: SqlLedger, file: Path) -> None:
    made = intend(ledger)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TRIGGER t BEFORE UPDATE ON purchases BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(LedgerError, match="refuses the row") as raised:
        ledger.change(made.id, lambda p: purchase(p.id, "unknown", nonce="n"), NOW, "answered")
    assert type(raised.value) is LedgerError


# Cost and growth


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_histories_take_one_query_a_table_however_many_policies(ledger: SqlLedger) -> None:
    made = intend(ledger)
    ledger.change(made.id, lambda p: purchase(p.id, "fulfilled", nonce="n"), NOW, "arrived")
    with statements() as seen:
        ledger.histories([policy(name=f"p{n}", cluster_id=f"C{n}") for n in range(1000)], NOW)
        few = len([statement for statement in seen if statement.startswith("SELECT")])
        ledger.histories([policy()], NOW)
    assert few <= 4  # purchases, runs, marks and orders
    # Where there are purchases, their arrivals and budgets too.
    assert len([statement for statement in seen if statement.startswith("SELECT")]) <= few + 6


def test_a_renewal_writes_one_row_however_many_leases(ledger: SqlLedger) -> None:
    clusters = [f"C{n}" for n in range(1000)]
    ledger.lease(HOLDER, clusters, timedelta(minutes=1))
    with statements() as seen:
        assert len(ledger.lease(HOLDER, clusters, timedelta(minutes=1))) == 1000
    written = [statement.split()[:3] for statement in seen if not statement.startswith(("BEGIN", "SELECT"))]
    assert written == [["DELETE", "FROM", "replicas"], ["INSERT", "INTO", "replicas"]]


def test_a_look_that_shows_nothing_new_writes_one_row(ledger: SqlLedger, file: Path) -> None:
    nodes = tuple(Node(f"i-{n}", "t", "Worker", n % 9 > 0, "running", NOW, None) for n in range(500))
    ledger.record_look(Inventory(CLUSTER_ID, NOW, cluster(), nodes, ()))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE writes (what TEXT)")
        for table in ("looks", "workers"):
            for action in ("INSERT", "UPDATE", "DELETE"):
                connection.execute(
                    f"CREATE TRIGGER {table}_{action} AFTER {action} ON {table} BEGIN INSERT INTO writes "
                    f"VALUES ('{table}'); END"
                )
    ledger.record_look(Inventory(CLUSTER_ID, at(seconds=30), cluster(), nodes, ()))
    assert count(file, "writes") == 1
    ledger.record_look(Inventory(CLUSTER_ID, at(seconds=60), cluster(), nodes[1:], ()))
    assert count(file, "writes") == 3


def test_evaluations_without_news_append_nothing_but_samples(ledger: SqlLedger, file: Path) -> None:
    for n in range(240):
        now = at(seconds=30 * n)
        history = ledger.histories([policy()], now)["edge"]
        known = facts(policy(), 4000, now=now, history=history, capacity=capacity(workers(10)))
        ledger.record([Evaluation(known, decide(known))])
    rows = {table: count(file, table) for table in ("decisions", "latest", "policy_versions", "samples")}
    assert rows == {"decisions": 1, "latest": 1, "policy_versions": 1, "samples": 120}
    ledger.prune(at(days=2, hours=1), timedelta(days=90))
    assert count(file, "samples") == 60


# Exactness

INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(load=st.fractions(min_value=0, max_value=10**12), now=INSTANTS, arrived_at=INSTANTS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_and_instants_come_back_exactly(
    ledger: SqlLedger, load: Fraction, now: datetime, arrived_at: datetime
) -> None:
    known = facts(
        readings=(CheckReading("sessions", Reading(load, arrived_at)),),
        now=now,
        history=History((purchase(1, arrivals=(Arrival("i", arrived_at),), sent_at=arrived_at),)),
    )
    made = Evaluation(known, decide(known))
    wish = purchase(0, "intended", nonce=f"n{len(ledger.purchases(limit=999))}", sent_at=arrived_at)
    _, reserved = ledger.reserve(policy(), now, HOLDER, lambda history, orders: (made, wish))
    assert reserved is not None
    assert ledger.purchase(reserved.id) == reserved
    assert ledger.evaluation(ledger.decisions(limit=1)[0].id) == made
    ledger.change(reserved.id, lambda p: purchase(p.id, "rejected", nonce=p.nonce, sent_at=arrived_at), now, "done")


@pytest.mark.parametrize("kept", [(), (purchase(3, "rejected"),)], ids=["none", "one"])
def test_a_decision_from_when_one_refusal_as_gone_was_remembered_is_read(
    ledger: SqlLedger, file: Path, kept: tuple[Purchase, ...]
) -> None:
    known = facts(policy(), 4000, capacity=capacity(workers(10)), history=History(gone=kept))
    ledger.record([Evaluation(known, decide(known))])
    with closing(sqlite3.connect(file)) as connection, connection:
        (written,) = connection.execute("SELECT facts FROM decisions").fetchone()
        as_once = json.loads(zlib.decompress(written))
        as_once["history"]["gone"] = as_once["history"]["gone"][0] if kept else None
        connection.execute("UPDATE decisions SET facts = ?", [zlib.compress(json.dumps(as_once).encode())])
    again = ledger.evaluation(1)
    assert again is not None
    assert again.facts == known
