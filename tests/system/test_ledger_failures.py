"""A real daemon over a ledger that fails: it sends nothing, says what is wrong, and goes on once that is mended.

Each test lets it meet its demand first, breaks the ledger, and asks for more workers. The cloud's order log judges.
"""

import os
import resource
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from autoscaler.cli import main
from autoscaler.daemon import Daemon
from autoscaler.ledger import LedgerError, LedgerUnavailable, back_up
from autoscaler.sandbox import ReplayedPrometheus, SandboxCloud
from autoscaler.settings import load_settings
from autoscaler.wiring import build
from tests.build import NOW
from tests.fakes import until
from tests.system.postgres_server import PostgresServer, binaries
from tests.test_daemon import KEY_ID, KEY_SECRET, POLICY, QUICK

pytestmark = pytest.mark.system

NOBODY = 65534
Log = list[Any]
Mend = Callable[[], object]


class Site:
    """A live policy over a cluster of two workers, and daemons over its ledger."""

    def __init__(self, folder: Path, url: str, sandbox: SandboxCloud, prometheus: ReplayedPrometheus) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.environ = {
            "AUTOSCALER_POLICIES": str(folder / "policies"),
            "AUTOSCALER_PROMETHEUS_URL": prometheus.url,
            "AUTOSCALER_CLOUD_ENDPOINT": sandbox.url,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
            "EDGE_LOGIN_PASSWORD": "Sandbox-0nly!",
        }
        self.become(url)
        (folder / "policies").mkdir()
        self.ask(2)

    def become(self, url: str) -> None:
        """Have another ledger."""
        self.url = self.environ["AUTOSCALER_LEDGER"] = url

    @property
    def file(self) -> Path:
        return Path(self.url.removeprefix("sqlite:///"))

    def ask(self, minimum: int) -> None:
        """Let the policy ask for so many workers from its next load on."""
        text = POLICY.format(cluster="C1", minimum=minimum, every="1s", dry_run="false")
        (self.folder / "policies" / "edge.yaml").write_text(text, encoding="utf-8")

    @contextmanager
    def daemon(self, *, begin: bool = False) -> Iterator[Daemon]:
        """A daemon at work."""
        parts = build(load_settings(self.environ), self.environ, pace=QUICK)
        made = Daemon(parts)
        try:
            made.start(begin=begin)
        except BaseException:
            parts.close()
            raise
        try:
            yield made
        finally:
            made.close()

    def needs_more(self, daemon: Daemon) -> None:
        self.ask(4)
        daemon._load_again()

    def begin(self) -> None:
        """Let a daemon meet the demand, and end."""
        with self.daemon(begin=True) as daemon:
            until(lambda: daemon.unevaluated() == 0)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoscaler.ledger.database.BUSY_SECONDS", 0.2)
    monkeypatch.setattr("autoscaler.daemon.RENEW_EVERY", timedelta(seconds=0.5))


@pytest.fixture(autouse=True)
def logs() -> Iterator[Log]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may go into, as the folders of pytest are not."""
    made = Path(tempfile.mkdtemp(prefix="autoscaler-ledger-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def sandbox() -> Iterator[SandboxCloud]:
    with SandboxCloud() as made:
        made.add_cluster("C1", workers=2)
        yield made


@pytest.fixture
def prometheus() -> Iterator[ReplayedPrometheus]:
    with ReplayedPrometheus({}) as made:
        yield made


@pytest.fixture
def site(folder: Path, sandbox: SandboxCloud, prometheus: ReplayedPrometheus) -> Site:
    return Site(folder, f"sqlite:///{folder}/ledger.db", sandbox, prometheus)


def errors(logs: Log) -> list[str]:
    told = [entry for entry in logs if entry["log_level"] == "error" and entry["event"] != "evaluation.failed"]
    return [str(entry.get("error")) for entry in told]


def holds(site: Site, daemon: Daemon, logs: Log, says: str) -> None:
    """Nothing is sent for some rounds, and the log and /readyz say why."""
    until(lambda: says in (daemon.ledger_problem() or ""), seconds=20)
    logs.clear()
    until(lambda: len(errors(logs)) >= 4, seconds=20)
    assert all(says in error for error in errors(logs)), errors(logs)
    assert site.sandbox.orders == []


def goes_on(site: Site, daemon: Daemon) -> None:
    """What is needed is bought, once."""
    until(lambda: site.sandbox.orders, seconds=20)
    until(lambda: daemon.ledger_problem() is None, seconds=20)
    time.sleep(1.5)  # another round
    (order,) = site.sandbox.orders
    bought = [purchase for purchase in daemon._parts.ledger.purchases() if purchase.sent_at is not None]
    assert [(each.nonce, each.asked) for each in bought] == [(order.nonce, 2)]


# What is broken, and how it is mended


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, Callable[[], Mend]]]:
    """A folder on a disk of two megabytes, and what fills it."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)

    def fill() -> Mend:
        with (disk / "junk").open("wb", buffering=0) as junk, suppress(OSError):
            while True:
                junk.write(bytes(4096))
        return (disk / "junk").unlink

    try:
        yield disk, fill
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # a connection may be about to end


@contextmanager
def limited_files(folder: Path) -> Iterator[tuple[Path, Callable[[], Mend]]]:
    """A folder, and what lets this process write no file beyond its first page: not even a log of one transaction."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def forgive() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def fill() -> Mend:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        return forgive

    try:
        yield folder, fill
    finally:
        forgive()


FULL = {"a limit on files": (limited_files, "disk I/O error; its -wal was removed, or its disk fails")}
if os.geteuid() == 0:  # who alone may mount one
    FULL["a full disk"] = (small_disk, "database or disk is full; free some space on its disk")


@pytest.mark.parametrize(("place", "says"), FULL.values(), ids=FULL)
def test_a_disk_that_takes_no_more(
    folder: Path, sandbox: SandboxCloud, prometheus: ReplayedPrometheus, logs: Log, place: Any, says: str
) -> None:
    with place(folder) as (disk, fill):
        site = Site(folder, f"sqlite:///{disk}/ledger.db", sandbox, prometheus)
        with site.daemon(begin=True) as daemon:
            until(lambda: daemon.unevaluated() == 0)
            mend = fill()
            site.needs_more(daemon)
            holds(site, daemon, logs, says)
            mend()
            goes_on(site, daemon)


def lock(site: Site) -> Mend:
    other = sqlite3.connect(site.file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other.close


def take_away(site: Site) -> Mend:
    away = site.file.with_name("away.db")
    os.rename(site.file, away)
    return lambda: os.rename(away, site.file)


def put_another_there(site: Site) -> Mend:
    back = take_away(site)
    site.file.touch()
    return back


def of_schema(schema: str) -> Callable[[Site], Mend]:
    def become(site: Site, to: str = schema) -> Mend:
        with closing(sqlite3.connect(site.file, isolation_level=None, timeout=5)) as other:
            (before,) = other.execute("SELECT version_num FROM alembic_version").fetchone()
            other.execute("UPDATE alembic_version SET version_num = ?", [to])
        return lambda: become(site, before)

    return become


BREAKS: dict[str, tuple[Callable[[Site], Mend], str]] = {
    "locked by another process": (lock, "database is locked; another process is holding a write open"),
    "its file is gone": (take_away, "is gone; put it back, and it goes on by itself"),
    "another file is in its place": (put_another_there, "another file was put in the place of the ledger"),
    "a newer program's schema": (of_schema("9999"), "the ledger has schema 9999"),
    "an older program's schema": (of_schema("0002"), "the ledger has schema 0002"),
}


@pytest.mark.parametrize(("damage", "says"), BREAKS.values(), ids=BREAKS)
def test_under_a_daemon(site: Site, logs: Log, damage: Callable[[Site], Mend], says: str) -> None:
    with site.daemon(begin=True) as daemon:
        until(lambda: daemon.unevaluated() == 0)
        mend = damage(site)
        site.needs_more(daemon)
        holds(site, daemon, logs, says)
        mend()
        goes_on(site, daemon)


@contextmanager
def as_a_plain_user(folder: Path) -> Iterator[None]:
    """What may not be written is written by root all the same; so root is nobody for a while."""
    with ExitStack() as undo:
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, NOBODY, NOBODY)
            undo.callback(os.seteuid, 0)
            os.seteuid(NOBODY)
        yield


def test_a_file_that_may_not_be_written(site: Site, logs: Log) -> None:
    site.begin()
    with as_a_plain_user(site.folder):
        site.file.chmod(0o444)
        with site.daemon() as daemon:
            site.needs_more(daemon)
            holds(
                site, daemon, logs, "readonly database; let this user write the file, its -wal and -shm, and its folder"
            )
            for file in site.folder.glob("ledger.db*"):  # SQLite made those beside it as the file itself was
                file.chmod(0o644)
            goes_on(site, daemon)


def test_a_folder_that_may_not_be_written_ends_the_start_and_says_so(site: Site) -> None:
    site.begin()
    with as_a_plain_user(site.folder):
        site.folder.chmod(0o555)
        try:
            with pytest.raises(LedgerUnavailable, match=r"write"), site.daemon():
                """It does not get so far."""
        finally:
            site.folder.chmod(0o755)


# Damage


def overwrite(file: Path, at: int, size: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(os.urandom(size))


def root_page(file: Path, table: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()
        return int(page)


@pytest.mark.parametrize(
    ("at", "says"),
    [
        (lambda file: 0, "file is not a database; the file is something else or damaged: put a backup in its place"),
        (lambda file: (root_page(file, "purchases") - 1) * 4096, "malformed; the file is damaged: put a backup"),
    ],
    ids=["the header", "what was bought"],
)
def test_damage_ends_the_start_and_says_so(site: Site, at: Callable[[Path], int], says: str) -> None:
    site.begin()
    overwrite(site.file, at(site.file), 4096)
    with pytest.raises(LedgerError, match=says), site.daemon():
        """It does not get so far."""


def test_damage_that_only_a_purchase_meets_buys_nothing(site: Site, logs: Log) -> None:
    site.begin()
    overwrite(site.file, (root_page(site.file, "purchase_events") - 1) * 4096, 4096)
    site.ask(4)
    with site.daemon():
        until(lambda: [entry for entry in logs if entry["event"] == "evaluation.failed"], seconds=20)
        assert site.sandbox.orders == []
    with closing(sqlite3.connect(site.file)) as connection:
        assert connection.execute("SELECT count(*) FROM purchases").fetchone() == (0,)


# Copies


def decided(daemon: Daemon) -> str:
    latest = daemon._parts.ledger.latest().get("edge")
    return "" if latest is None else latest.sentence


def test_a_backup_put_in_its_place_holds_until_a_person_reviewed_it(site: Site, logs: Log) -> None:
    """The daemon buys after the backup; the ledger is lost; the copy's daemon must not buy that again."""
    site.begin()
    back_up(site.url, site.folder / "copy.db", NOW)
    with site.daemon() as daemon:
        site.needs_more(daemon)
        until(lambda: site.sandbox.orders, seconds=20)
    for lost in site.folder.glob("ledger.db*"):
        lost.unlink()
    shutil.copy(site.folder / "copy.db", site.file)
    site.ask(8)  # more than was bought, so that something is needed
    with site.daemon() as daemon:
        until(lambda: "or `autoscaler ledger reviewed`" in decided(daemon), seconds=20)
        assert decided(daemon).startswith("blocked")
        assert [entry["copied_at"] for entry in logs if entry["event"] == "ledger.restored"] == [str(NOW)]
        assert len(site.sandbox.orders) == 1


def said(url: str, *command: str) -> str:
    """What a command on the ledger prints."""
    result = CliRunner().invoke(main, ["ledger", *command], env={"AUTOSCALER_LEDGER": url})
    assert result.exit_code in (0, 2), result.output
    return result.output


def test_a_dump_of_postgresql_that_is_restored_holds_until_a_person_reviewed_it(
    folder: Path, sandbox: SandboxCloud, prometheus: ReplayedPrometheus, postgres: PostgresServer
) -> None:
    """As the README says it: the dump by the command that ``ledger backup`` names, and its restoral said by hand."""
    site = Site(folder, postgres.url(postgres.create_database()), sandbox, prometheus)
    folder.chmod(0o777)  # the server's user writes there
    site.begin()
    (dump,) = [line for line in said(site.url, "backup", str(folder / "copy")).splitlines() if "pg_dump" in line]
    postgres.run(*shlex.split(dump))
    with site.daemon() as daemon:
        site.needs_more(daemon)
        until(lambda: site.sandbox.orders, seconds=20)

    site.become(postgres.url(postgres.create_database()))
    address = site.url.replace("+psycopg", "")
    postgres.run("pg_restore", "--exit-on-error", f"--dbname={address}", str(folder / "copy"))
    assert "failed" not in said(site.url, "verify")
    said(site.url, "restored", "--reason", "the server's disk is lost", "--author", "ana")
    site.ask(8)
    with site.daemon() as daemon:
        until(lambda: "or `autoscaler ledger reviewed`" in decided(daemon), seconds=20)
        assert decided(daemon).startswith("blocked")
        assert len(site.sandbox.orders) == 1
        said(site.url, "reviewed", "--reason", "the billing centre has one order", "--author", "ana")
        # Nothing is held for the restoring any more; the task that the dump lacks is under way, and that is seen.
        until(lambda: "somebody else is scaling out the cluster (task" in decided(daemon), seconds=20)
    assert [order.count for order in site.sandbox.orders] == [2]


def test_while_the_database_is_away(
    folder: Path, sandbox: SandboxCloud, prometheus: ReplayedPrometheus, logs: Log
) -> None:
    if binaries() is None:
        pytest.skip("PostgreSQL is not on this machine: apt-get install --no-install-recommends postgresql")
    with PostgresServer() as server:
        site = Site(folder, server.url(server.create_database()), sandbox, prometheus)
        with site.daemon(begin=True) as daemon:
            until(lambda: daemon.unevaluated() == 0)
            server.stop()
            site.needs_more(daemon)
            holds(site, daemon, logs, "cannot be used: ")
            server.start()
            goes_on(site, daemon)
