"""A ledger of an older schema: brought to the newest one at start, with all that money depends on."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, inspect, text

from autoscaler.ledger import LedgerUnavailable, open_ledger, view_ledger
from tests.build import NOW

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


def test_what_checks_read_before_it_was_kept_is_not_known(url: str, engine: Engine) -> None:
    begin(engine, "0002")
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
