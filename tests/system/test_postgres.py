"""What only a ledger in PostgreSQL can get wrong: a server that forgets, that stands still, that goes and comes."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import create_engine

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import LedgerUnavailable, SqlLedger, open_ledger, view_ledger
from autoscaler.ledger.database import STALLED_SECONDS
from autoscaler.ledger.migrate import SCHEMA
from autoscaler.ledger.postgres import Server, concerns, refusal
from autoscaler.ledger.tables import metadata
from autoscaler.model import Accepted, Answer, History, Override, Purchase
from autoscaler.policy import Policy, WorkerSpec
from autoscaler.purchase import Raced
from autoscaler.purchasing import Purchasing
from tests.build import NOW, capacity, facts, policy, purchase, workers
from tests.system.postgres_server import PostgresServer
from tests.system.tcp_proxy import Lost, TcpProxy

pytestmark = pytest.mark.system

HOLDER = "daemon-1"
MINUTE = timedelta(minutes=1)
COMMIT = b"\x0bCOMMIT\x00"  # a message on the wire: its length, its text, its end
SOUND = Server(
    version=15,
    is_standby=False,
    fsync=True,
    synchronous_commit="on",
    full_page_writes=True,
    encoding="UTF8",
    read_only=False,
    waits_for_standbys=False,
    standbys=0,
    now=NOW,
)


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.create_database()


@pytest.fixture
def ledger(postgres: PostgresServer, database: str) -> Iterator[SqlLedger]:
    with closing(opened(postgres.url(database))) as ledger:
        yield ledger


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """A server that a test may end; the others have theirs to themselves meanwhile."""
    with PostgresServer() as server:
        yield server


def opened(url: str) -> SqlLedger:
    return open_ledger(url, clock=lambda: NOW)


def evaluation(load: int = 9999, of: Policy | None = None) -> Evaluation:
    known = facts(of or policy(), load, capacity=capacity(workers(10)))
    return Evaluation(known, decide(known))


def intend(ledger: SqlLedger, nonce: str = "n") -> Purchase:
    wish = purchase(0, "intended", nonce=nonce)
    _, made = ledger.reserve(policy(), NOW, HOLDER, lambda history, orders: (evaluation(), wish))
    assert made is not None
    return made


# Schema


def test_the_migrations_make_the_tables(ledger: SqlLedger, postgres: PostgresServer, database: str) -> None:
    engine = create_engine(postgres.url(database))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == SCHEMA
    engine.dispose()


def test_daemons_that_start_at_once_on_a_new_database_do_not_collide(postgres: PostgresServer, database: str) -> None:
    start = Barrier(4)

    def begin(_: int) -> SqlLedger:
        start.wait(10)
        return opened(postgres.url(database))

    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(begin, range(4)))
    assert all(ledger.latest() == {} for ledger in ledgers)
    for ledger in ledgers:
        ledger.close()


# What the server must be set to


@pytest.mark.parametrize(
    ("found", "why", "mend"),
    [
        ({"version": 12}, "PostgreSQL 12 is too old", "13"),
        ({"is_standby": True}, "standby", "target_session_attrs"),
        ({"fsync": False}, "fsync is off", "fsync = on"),
        ({"synchronous_commit": "off"}, "synchronous_commit is off", "ALTER DATABASE"),
        ({"encoding": "SQL_ASCII"}, "encoding is SQL_ASCII", "UTF8"),
        ({"read_only": True}, "read-only", "default_transaction_read_only"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_server_that_would_forget_is_refused(found: dict[str, object], why: str, mend: str) -> None:
    refused = refusal(sound(**found))
    assert refused is not None
    assert why in refused[0]
    assert mend in refused[1]


@pytest.mark.parametrize("synchronous_commit", ["on", "local", "remote_write", "remote_apply"])
def test_a_sound_server_is_taken(synchronous_commit: str) -> None:
    assert refusal(sound(synchronous_commit=synchronous_commit)) is None
    assert concerns(sound(synchronous_commit=synchronous_commit), NOW) == ()


@pytest.mark.parametrize(
    ("found", "says"),
    [
        pytest.param({"full_page_writes": False}, "full_page_writes is off", id="torn pages"),
        pytest.param({"standbys": 1}, "a failover to one would forget", id="an asynchronous standby"),
        pytest.param(
            {"standbys": 1, "waits_for_standbys": True, "synchronous_commit": "local"},
            "synchronous_commit is local",
            id="a standby that this database does not wait for",
        ),
        pytest.param({"now": NOW + timedelta(seconds=31)}, "31 s apart", id="a clock that is ahead"),
        pytest.param({"now": NOW - timedelta(seconds=31)}, "31 s apart", id="a clock that is behind"),
        pytest.param({"now": NOW + timedelta(seconds=30)}, None, id="a clock that is nearly right"),
        pytest.param({"standbys": 1, "waits_for_standbys": True}, None, id="a standby that is waited for"),
    ],
)
def test_what_is_doubtful_about_a_server_is_said(found: dict[str, object], says: str | None) -> None:
    told = concerns(sound(**found), NOW)
    assert len(told) == (0 if says is None else 1)
    assert all(says is not None and says in concern for concern in told)


def sound(**found: object) -> Server:
    return replace(SOUND, **found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("synchronous_commit = off", "synchronous_commit is off"),
        ("default_transaction_read_only = on", "read-only"),
    ],
)
def test_a_database_that_is_set_wrongly_is_refused_by_name(postgres: PostgresServer, setting: str, why: str) -> None:
    database = postgres.create_database(setting)
    with pytest.raises(LedgerUnavailable, match=why) as raised:
        opened(postgres.url(database))
    assert database in raised.value.why
    assert "ALTER DATABASE" in raised.value.mend


def test_a_server_set_wrongly_later_is_refused_by_the_next_connection(
    postgres: PostgresServer, database: str, ledger: SqlLedger
) -> None:
    intend(ledger)
    postgres.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    postgres.cut_connections(database)
    with pytest.raises(LedgerUnavailable, match="synchronous_commit is off"):
        intend(ledger, "m")
    with closing(view_ledger(postgres.url(database), clock=lambda: NOW)) as view:
        assert len(view.purchases()) == 1, "whoever only looks may look"
    postgres.execute(f"ALTER DATABASE {database} RESET synchronous_commit")
    assert ledger.purchases()[0].nonce == "n"


def test_a_sound_server_raises_no_concern_but_for_its_clock(postgres: PostgresServer, database: str) -> None:
    with closing(open_ledger(postgres.url(database), clock=lambda: datetime.now(UTC))) as ledger:
        assert ledger.concerns() == ()
    with closing(opened(postgres.url(database))) as ledger:
        assert "apart" in "".join(ledger.concerns()), "the test's clock stands at noon of a day"


def test_a_server_whose_disk_may_forget_is_refused() -> None:
    with PostgresServer(options=["fsync=off", "full_page_writes=off"]) as server:
        url = server.url(server.create_database())
        with pytest.raises(LedgerUnavailable, match="fsync is off"):
            opened(url)


@pytest.mark.parametrize(
    ("address", "says", "mend"),
    [
        pytest.param(lambda server: server.url("nowhere"), "does not exist", "createdb", id="no such database"),
        pytest.param(
            lambda server: server.url("x", port=1), "refused", "see that the database answers", id="no server"
        ),
    ],
)
def test_what_cannot_be_reached_is_said_with_its_mend(
    postgres: PostgresServer, address: Callable[[PostgresServer], str], says: str, mend: str
) -> None:
    with pytest.raises(LedgerUnavailable) as raised:
        opened(address(postgres))
    assert says in raised.value.why.lower()
    assert mend in raised.value.mend


def test_a_user_who_may_not_make_tables_is_told_so(postgres: PostgresServer, database: str) -> None:
    postgres.execute(f"CREATE ROLE guest_of_{database} LOGIN")
    url = postgres.url(database).replace("autoscaler@", f"guest_of_{database}@")
    with pytest.raises(LedgerUnavailable, match="permission denied") as raised:
        opened(url)
    assert "owner of the database" in raised.value.mend


# Writers


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_whatever_the_servers_default_a_writer_sees_what_the_one_before_it_wrote(
    postgres: PostgresServer, isolation: str
) -> None:
    """A snapshot taken before the lock would show each that the cluster is free."""
    database = postgres.create_database(f"default_transaction_isolation = '{isolation}'")
    start = Barrier(2)

    def run(ledger: SqlLedger, nonce: str) -> Purchase | None:
        def propose(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase | None]:
            return evaluation(), None if history.purchases else purchase(0, "intended", nonce=nonce)

        start.wait(10)
        return ledger.reserve(policy(), NOW, HOLDER, propose)[1]

    with closing(opened(postgres.url(database))) as one, closing(opened(postgres.url(database))) as other:
        for n in range(10):
            with ThreadPoolExecutor(2) as pool:
                made = list(pool.map(run, (one, other), (f"a{n}", f"b{n}")))
            (won,) = [each for each in made if each is not None]
            one.change(won.id, lambda p: purchase(p.id, "cancelled", nonce=p.nonce, sent_at=p.signed_at), NOW, "done")


def test_a_writer_that_stands_still_stops_the_others_for_some_seconds_only(
    postgres: PostgresServer, database: str, ledger: SqlLedger
) -> None:
    """A process that is stopped, or whose machine is gone, while it writes: the others' leases must not run out."""
    inside, wake = threading.Event(), threading.Event()

    def stand_still(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        inside.set()
        wake.wait(30)
        return evaluation(), purchase(0, "intended", nonce="late")

    with ThreadPoolExecutor(1) as pool, closing(opened(postgres.url(database))) as other:
        stopped = pool.submit(ledger.reserve, policy(), NOW, HOLDER, stand_still)
        assert inside.wait(10)
        begun = datetime.now(UTC)
        assert other.lease("daemon-2", ["C1"], MINUTE) == {"C1"}
        waited = datetime.now(UTC) - begun
        wake.set()
        with pytest.raises(LedgerUnavailable, match="idle-in-transaction") as raised:
            stopped.result(30)
    assert waited < timedelta(seconds=STALLED_SECONDS + 1.5)
    assert "stood still" in raised.value.mend
    assert ledger.purchases() == ()
    intend(ledger)


# A server that goes and comes back


def test_while_the_server_is_away_the_ledger_says_so_and_then_goes_on(fragile: PostgresServer) -> None:
    database = fragile.create_database()
    with closing(opened(fragile.url(database))) as ledger:
        made = intend(ledger)
        for end in (fragile.stop, fragile.kill):
            end()
            for use in (ledger.latest, lambda: intend(ledger, "m"), lambda: ledger.lease(HOLDER, ["C1"], MINUTE)):
                with pytest.raises(LedgerUnavailable, match="cannot be used") as raised:
                    use()
                assert "see that the database answers" in raised.value.mend
            fragile.start()
            assert ledger.purchases() == (made,), "what was confirmed is there after a crash"
            assert ledger.lease(HOLDER, ["C1"], MINUTE) == {"C1"}


def test_a_server_that_became_a_standby_is_refused_until_it_is_the_primary_again(fragile: PostgresServer) -> None:
    database = fragile.create_database()
    with closing(opened(fragile.url(database))) as ledger:
        intend(ledger)
        fragile.restart(standby=True)
        with pytest.raises(LedgerUnavailable, match="is a standby") as raised:
            intend(ledger, "m")
        assert "target_session_attrs" in raised.value.mend
        with closing(view_ledger(fragile.url(database), clock=lambda: NOW)) as view:
            assert len(view.purchases()) == 1
        fragile.restart()
        with pytest.raises(Raced):
            intend(ledger, "m")


def test_connections_cut_between_two_uses_are_not_even_noticed(
    postgres: PostgresServer, database: str, ledger: SqlLedger
) -> None:
    made = intend(ledger)
    assert postgres.cut_connections(database) > 0
    assert ledger.purchases() == (made,)
    assert postgres.cut_connections(database) > 0
    assert ledger.lease(HOLDER, ["C1"], MINUTE) == {"C1"}


def test_a_connection_cut_while_it_writes_leaves_nothing(
    postgres: PostgresServer, database: str, ledger: SqlLedger
) -> None:
    def cut(history: History, orders: tuple[Override, ...]) -> tuple[Evaluation, Purchase]:
        postgres.cut_connections(database)
        return evaluation(), purchase(0, "intended")

    with pytest.raises(LedgerUnavailable, match="terminating connection"):
        ledger.reserve(policy(), NOW, HOLDER, cut)
    assert (ledger.latest(), ledger.purchases()) == ({}, ())
    intend(ledger)


# A confirmation that does not arrive


class FakeSeller:
    """Sells all it is asked for, at once."""

    def __init__(self) -> None:
        self.calls: list[Purchase] = []

    def scale_out(self, purchase: Purchase, worker: WorkerSpec, password: SecretStr) -> Answer:
        self.calls.append(purchase)
        return Accepted("T-1")


class Nobody:
    """Counts nothing, and has no cloud to show."""

    def purchases_changed(self, purchases: object) -> None:
        pass

    def inventory(self, cluster_id: str) -> object:
        raise AssertionError("nothing was sold: there is nothing to look at")

    task = inventory


@dataclass
class Road:
    """The road to money over a ledger that is reached through a proxy."""

    ledger: SqlLedger
    seller: FakeSeller
    purchasing: Purchasing
    proxy: TcpProxy

    def states(self) -> list[str]:
        return [row.state.value for row in self.ledger.purchases()]


@pytest.fixture
def road(postgres: PostgresServer, database: str) -> Iterator[Road]:
    seller, nobody = FakeSeller(), Nobody()
    with TcpProxy(postgres.port) as proxy, closing(opened(postgres.url(database, proxy.port))) as ledger:
        purchasing = Purchasing(
            ledger=ledger,
            cloud=nobody,  # type: ignore[arg-type]
            seller=lambda purchase: seller,
            password=lambda policy: SecretStr("Passw0rd!"),
            observer=nobody,
            clock=lambda: NOW,
            holder=HOLDER,
            held=lambda: frozenset({"C1"}),
        )
        ledger.lease(HOLDER, ["C1"], MINUTE)
        yield Road(ledger, seller, purchasing, proxy)
        purchasing.close()


@pytest.mark.parametrize("lost", Lost)
def test_a_reservation_that_was_not_confirmed_is_not_sent_and_made_again(road: Road, lost: Lost) -> None:
    road.proxy.lose(lost, COMMIT)
    with pytest.raises(LedgerUnavailable, match="cannot be used"):
        road.purchasing.buy(evaluation())
    assert road.proxy.has_lost
    assert road.states() == (["intended"] if lost is Lost.ANSWER else [])

    road.purchasing.settle_all(NOW)
    assert road.states() == (["cancelled"] if lost is Lost.ANSWER else [])
    assert road.seller.calls == []
    road.purchasing.buy(evaluation())
    road.purchasing.close()
    assert [call.nonce for call in road.seller.calls] == [road.ledger.purchases()[0].nonce]
    assert road.states()[0] == "accepted"


@pytest.mark.parametrize("lost", Lost)
def test_a_claim_that_was_not_confirmed_is_not_sent_and_known_to_be_unsent(road: Road, lost: Lost) -> None:
    road.proxy.lose(lost, COMMIT, nth=2)
    road.purchasing.buy(evaluation())
    road.purchasing.close()
    assert road.proxy.has_lost
    assert road.seller.calls == []
    # A claim that was written all the same is undone as something that surely bought nothing.
    assert road.states() == ["rejected" if lost is Lost.ANSWER else "cancelled"]


@pytest.mark.parametrize("lost", Lost)
def test_an_answer_whose_record_was_not_confirmed_is_recorded_again(road: Road, lost: Lost) -> None:
    road.proxy.lose(lost, COMMIT, nth=3)
    road.purchasing.buy(evaluation())
    road.purchasing.close()
    assert road.proxy.has_lost
    assert [call.nonce for call in road.seller.calls] == [road.ledger.purchases()[0].nonce]
    assert road.states() == ["accepted"]
