"""Whether a ledger is whole: its schema, its pages, its purchases, and its decisions, which have to come out the same.

It reads everything, row by row, so that what cannot be read is named and hides nothing else.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from autoscaler.decision import differences
from autoscaler.ledger import evaluation_rows, purchase_rows
from autoscaler.ledger.database import Database
from autoscaler.ledger.errors import LedgerError
from autoscaler.ledger.migrate import SCHEMA, require_current
from autoscaler.ledger.tables import decisions, purchases
from autoscaler.purchase import UNRESOLVED

SHOWN = 5
"""So many of what is wrong are named; where there are more, the first ones say enough."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the whole ledger came to."""

    check: str
    ok: bool
    says: str


def verify(url: str, *, clock: Callable[[], datetime]) -> tuple[Finding, ...]:
    """What is found in the ledger at ``url``, which is only read.

    LedgerMissing if there is none, LedgerUnavailable if its server does not answer; what else is wrong is a finding.
    """
    database = Database(url, clock, read_only=True)
    try:
        if not database.is_sqlite:
            with database.reading():
                """It answers, or raises."""
        try:
            require_current(database)
        except LedgerError as error:
            return (Finding("schema", False, str(error)),)
        return (Finding("schema", True, SCHEMA), *_findings(database))
    finally:
        database.close()


def _findings(database: Database) -> Iterator[Finding]:
    checks: list[tuple[str, Callable[[Connection], Finding]]] = [
        ("purchases", _purchases),
        ("nonces", _nonces),
        ("unresolved", _unresolved),
        ("decisions", _decisions),
    ]
    if database.is_sqlite:  # PostgreSQL holds foreign keys by itself, and tells of a damaged page whoever reads it
        checks = [("integrity_check", _integrity), ("foreign_key_check", _foreign_keys), *checks]
    for name, check in checks:
        try:
            with database.reading() as connection:
                yield check(connection)
        except LedgerError as error:
            yield Finding(name, False, str(error))


def _integrity(connection: Connection) -> Finding:
    found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({SHOWN})")]
    return Finding("integrity_check", found == ["ok"], "; ".join(" ".join(line.split()) for line in found))


def _foreign_keys(connection: Connection) -> Finding:
    rows = Counter((row[0], row[2]) for row in connection.exec_driver_sql("PRAGMA foreign_key_check"))
    broken = [f"{n} of {child} without their row of {parent}" for (child, parent), n in sorted(rows.items())]
    return Finding("foreign_key_check", not broken, "; ".join(broken) or "ok")


def _purchases(connection: Connection) -> Finding:
    wrong = []
    ids = connection.execute(select(purchases.c.id).order_by(purchases.c.id)).scalars().all()
    for key in ids:
        try:
            purchase_rows.find(connection, key)
        except Exception as error:  # whatever keeps a row from being read is what is looked for
            wrong.append(f"{key} ({type(error).__name__})")
    return Finding("purchases", not wrong, _says(wrong, "cannot be read") if wrong else f"{len(ids)}, readable")


def _nonces(connection: Connection) -> Finding:
    twice = select(purchases.c.nonce).group_by(purchases.c.nonce).having(func.count() > 1).order_by(purchases.c.nonce)
    found = connection.execute(twice).scalars().all()
    return Finding("nonces", not found, _says(found, "used twice") if found else "each used once")


def _unresolved(connection: Connection) -> Finding:
    several = (
        select(purchases.c.cluster_id)
        .where(purchases.c.state.in_(sorted(UNRESOLVED)))
        .group_by(purchases.c.cluster_id, purchases.c.imagined)
        .having(func.count() > 1)
        .order_by(purchases.c.cluster_id)
    )
    found = connection.execute(several).scalars().all()
    return Finding("unresolved", not found, _says(found, "has several") if found else "at most one a cluster")


def _decisions(connection: Connection) -> Finding:
    wrong = []
    ids = connection.execute(select(decisions.c.id).order_by(decisions.c.id)).scalars().all()
    for key in ids:
        try:
            stored = evaluation_rows.evaluation(connection, key)
            differing = differences(stored) if stored is not None else ("its policy is gone",)
        except Exception as error:  # as above
            differing = (type(error).__name__,)
        if differing:
            wrong.append(f"{key} ({', '.join(differing)})")
    says = _says(wrong, "cannot be read or come out otherwise") if wrong else f"{len(ids)}, replayed the same"
    return Finding("decisions", not wrong, says)


def _says(wrong: Iterable[str], what: str) -> str:
    names = list(wrong)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}"
