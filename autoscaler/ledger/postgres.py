"""What the ledger asks of a PostgreSQL server: that nothing it has confirmed is ever lost.

A purchase is sent once its reservation is confirmed. A server that confirms before its disk has it may forget the row,
which then keeps nobody from buying again: such a server is refused. Each new connection is asked, not the first alone,
because behind one address there may be another server an hour later.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

OLDEST = 13  # older ones are no longer mended by PostgreSQL's own project
CLOCKS_APART = timedelta(seconds=30)

_ASK = """
SELECT current_setting('server_version_num')::int / 10000,
       pg_is_in_recovery(),
       current_setting('fsync') = 'on',
       current_setting('synchronous_commit'),
       current_setting('full_page_writes') = 'on',
       current_setting('server_encoding'),
       current_setting('default_transaction_read_only') = 'on',
       current_setting('synchronous_standby_names') <> '',
       (SELECT count(*) FROM pg_stat_replication),
       clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server as one connection finds it."""

    version: int
    is_standby: bool
    fsync: bool
    synchronous_commit: str
    full_page_writes: bool
    encoding: str
    read_only: bool
    waits_for_standbys: bool
    standbys: int
    now: datetime


Run = Callable[[str], tuple[Any, ...]]  # one row for one statement


def ask(run: Run) -> Server:
    """The server that ``run`` asks."""
    row = dict(zip((field.name for field in fields(Server)), run(_ASK), strict=True))
    return Server(**row | {"now": row["now"].astimezone(UTC)})


def refusal(server: Server) -> tuple[str, str] | None:
    """Why no ledger can be kept there, and the mend; None: one can."""
    found = (
        (
            server.version < OLDEST,
            f"PostgreSQL {server.version} is too old",
            f"{OLDEST} is the oldest that will do",
        ),
        (
            server.is_standby,
            "the server is a standby, which takes no writes",
            "name the primary, or several hosts and ?target_session_attrs=read-write",
        ),
        (
            not server.fsync,
            "fsync is off: a crash of its machine would forget what was bought",
            "set fsync = on in postgresql.conf and restart the server",
        ),
        (
            server.synchronous_commit == "off",
            "synchronous_commit is off: a crash of the server would forget what was bought",
            "run ALTER DATABASE … SET synchronous_commit = on",
        ),
        (
            server.encoding != "UTF8",
            f"the database's encoding is {server.encoding}, which cannot hold every text",
            "create the database with ENCODING 'UTF8' TEMPLATE template0",
        ),
        (
            server.read_only,
            "its transactions are read-only",
            "run ALTER DATABASE … SET default_transaction_read_only = off",
        ),
    )
    return next(((why, mend) for bad, why, mend in found if bad), None)


def concerns(server: Server, now: datetime) -> tuple[str, ...]:
    """What may cost the record of a purchase and cannot be judged from here; ``now`` is by this machine's clock."""
    found = (
        (
            not server.full_page_writes,
            "full_page_writes is off: on most file systems a crash of its machine may damage the ledger",
        ),
        (
            server.standbys > 0 and not server.waits_for_standbys,
            f"the server has {server.standbys} standby and waits for none (synchronous_standby_names is empty): "
            "a failover to one would forget what was bought last",
        ),
        (
            server.waits_for_standbys and server.synchronous_commit == "local",
            "synchronous_commit is local: a failover to a standby would forget what was bought last",
        ),
        (
            abs(server.now - now) > CLOCKS_APART,
            f"the server's clock and this machine's are {abs(server.now - now).total_seconds():.0f} s apart",
        ),
    )
    return tuple(text for bad, text in found if bad)
