"""A ledger of an older schema: brought to the newest one at start, with all that money depends on."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner
from pydantic import TypeAdapter
from sqlalchemy import Engine, create_engine, inspect, text

from autoscaler.cli import main
from autoscaler.ledger import LedgerOutdated, LedgerUnavailable, open_ledger, view_ledger
from autoscaler.model import Terms
from autoscaler.purchase import terms
from tests.build import NOW, policy

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgres")
    found: str = server.url(server.create_database())
    return found


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


def begin(engine: Engine, schema: str) -> None:
    config = Config()
    config.set_main_option("script_location", "autoscaler.ledger:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, schema)


def test_leases_of_the_first_schema_end_and_their_fences_go_on(url: str, engine: Engine) -> None:
    begin(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO leases VALUES ('C1', 'old', 4102444800000000, 7)"))
    with pytest.raises(LedgerUnavailable, match="schema 0001"):
        view_ledger(url, clock=lambda: NOW)
    with closing(open_ledger(url, clock=lambda: NOW)) as ledger:
        assert ledger.holders() == ()
        assert ledger.lease("new", ["C1", "C2"], MINUTE) == {"C1", "C2"}
        assert [(lease.cluster_id, lease.fence) for lease in ledger.holders()] == [("C1", 8), ("C2", 1)]


def test_what_was_bought_under_the_second_schema_is_kept_and_nothing_is_held_back(url: str, engine: Engine) -> None:
    begin(engine, "0002")
    row = {
        **{"policy": "edge", "policy_version": "v", "cluster_id": "C1", "state": "unknown", "asked": 3},
        **{"terms": TypeAdapter(Terms).dump_json(terms(policy())).decode(), "imagined": False, "nonce": "n-1"},
        **{"signed_at": 1, "reserved_at": 1, "endpoint": "e", "credential": "c", "supply_before": 0},
        **{"tasks_before": "[]", "failed": 0, "failures": "[]", "adopted": False},
    }
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO purchases ({columns}) VALUES ({values})"), row)
    with pytest.raises(LedgerOutdated, match="schema 0002 and this program reads 0004; start the daemon"):
        view_ledger(url, clock=lambda: NOW)
    with closing(open_ledger(url, clock=lambda: NOW)) as ledger:
        assert [(bought.id, bought.state, bought.nonce) for bought in ledger.purchases()] == [(1, "unknown", "n-1")]
        assert (ledger.marks(), ledger.restoral(NOW)) == ((), None)


def test_a_dump_of_an_older_program_is_called_restored_before_a_daemon_opens_it(url: str, engine: Engine) -> None:
    begin(engine, "0002")
    said = ["ledger", "restored", "--reason", "dump of 03:00", "--author", "ana"]
    result = CliRunner().invoke(main, said, env={"AUTOSCALER_LEDGER": url})
    assert result.exit_code == 0, result.output
    with closing(view_ledger(url, clock=lambda: NOW)) as view:
        assert [(mark.name, mark.author) for mark in view.marks()] == [("restored", "ana")]


def test_what_checks_read_before_it_was_kept_is_not_known(url: str, engine: Engine) -> None:
    begin(engine, "0003")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO latest VALUES ('edge', '{}', '[]')"))
    with closing(open_ledger(url, clock=lambda: NOW)) as ledger:
        assert ledger.readings() == {}
        assert ledger.override_history() == ()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(url: str, engine: Engine) -> None:
    begin(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE replicas (in_the_way INTEGER)"))
    with pytest.raises(LedgerUnavailable, match="replicas"):
        open_ledger(url, clock=lambda: NOW)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == "0001"
        assert "expires_at" in {column["name"] for column in inspect(connection).get_columns("leases")}
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE replicas"))
    open_ledger(url, clock=lambda: NOW).close()
