"""Brings a database to the schema that this program is written for.

The whole upgrade is one write transaction: of several processes that start at once one upgrades and the others wait,
and an upgrade that fails leaves the database as it was.
"""

from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from autoscaler.ledger.database import Database
from autoscaler.ledger.errors import LedgerMissing, LedgerOutdated, LedgerTooNew

if TYPE_CHECKING:
    from alembic.config import Config

SCHEMA = "0004"
"""The newest revision in ``migrations/versions``."""

_REVISION = text("SELECT version_num FROM alembic_version")


def upgrade(database: Database) -> None:
    """Run the migrations that the database lacks. LedgerTooNew if it has some that this program lacks."""
    with database.reading() as connection:
        if _revision(connection) == SCHEMA:
            return

    # Here, because no start but the first one of a version needs it, and it doubles the time of a short command.
    from alembic import command

    config = _config()
    with database.writing() as connection:
        revision = _revision(connection)
        if revision is not None and revision not in _known(config):
            raise _too_new(revision)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def require_current(database: Database) -> None:
    """See that the database can be read as it is. LedgerMissing, LedgerTooNew, LedgerOutdated."""
    with database.reading() as connection:
        if _revision(connection) is None:
            raise LedgerMissing("the database holds no ledger yet", "`autoscaler run` begins one in it")
        require_schema(connection)


def require_schema(connection: Connection) -> None:
    """See that the ledger has the schema of this program, at the cost of one row. LedgerTooNew, LedgerOutdated."""
    revision = connection.execute(_REVISION).scalar()
    if revision == SCHEMA:
        return
    if revision is not None and revision not in _known(_config()):
        raise _too_new(revision)
    raise LedgerOutdated(
        f"the ledger has schema {revision} and this program reads {SCHEMA}",
        "start the daemon, which updates it",
    )


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "autoscaler.ledger:migrations")
    return config


def _known(config: "Config") -> set[str]:
    """The schemas that this program knows."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


def _too_new(revision: str) -> LedgerTooNew:
    return LedgerTooNew(
        f"the ledger has schema {revision} and this program knows none beyond {SCHEMA}: "
        "run the program that wrote it, or a newer one"
    )


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(_REVISION).scalar()
