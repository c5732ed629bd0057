"""The ledger: the one memory there is, from which every decision is computed.

``open_ledger`` gives it in a database, ``view_ledger`` only to look at, ``MemoryLedger`` in lists; all keep the same
contract, documented at ``SqlLedger``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autoscaler.ledger.errors import (
    LedgerError,
    LedgerMissing,
    LedgerOutdated,
    LedgerTooNew,
    LedgerUnavailable,
    NotFound,
)
from autoscaler.ledger.memory import MemoryLedger
from autoscaler.ledger.records import Lease, Mark, MarkName, PurchaseEvent, Sample, StoredDecision

if TYPE_CHECKING:
    from autoscaler.ledger.backup import BackupFailed, back_up
    from autoscaler.ledger.database import address_of_file, address_without_secrets
    from autoscaler.ledger.sql import Ledger, SqlLedger, open_ledger
    from autoscaler.ledger.verification import Finding, verify
    from autoscaler.ledger.view import LedgerView, view_ledger
else:
    # SQLAlchemy takes longer to import than the tests of a policy take to run on lists: only who names one of these
    # waits for it.
    _IN_A_DATABASE = {
        "BackupFailed": "backup",
        "Finding": "verification",
        "Ledger": "sql",
        "LedgerView": "view",
        "SqlLedger": "sql",
        "address_of_file": "database",
        "address_without_secrets": "database",
        "back_up": "backup",
        "open_ledger": "sql",
        "verify": "verification",
        "view_ledger": "view",
    }

    def __getattr__(name: str) -> object:
        if name not in _IN_A_DATABASE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_IN_A_DATABASE[name]}"), name)


__all__ = [
    "BackupFailed",
    "Finding",
    "Lease",
    "Ledger",
    "LedgerError",
    "LedgerMissing",
    "LedgerOutdated",
    "LedgerTooNew",
    "LedgerUnavailable",
    "LedgerView",
    "Mark",
    "MarkName",
    "MemoryLedger",
    "NotFound",
    "PurchaseEvent",
    "Sample",
    "SqlLedger",
    "StoredDecision",
    "address_of_file",
    "address_without_secrets",
    "back_up",
    "open_ledger",
    "verify",
    "view_ledger",
]
