"""The ledger: the one memory there is, from which every decision is computed.

``open_ledger`` gives it in a database, ``view_ledger`` only to look at, ``MemoryLedger`` in lists; all keep the same
contract, documented at ``SqlLedger``.
"""

from autoscaler.ledger.backup import BackupFailed, back_up
from autoscaler.ledger.database import address_of_file, address_without_secrets
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
from autoscaler.ledger.sql import SqlLedger, open_ledger
from autoscaler.ledger.verification import Finding, verify
from autoscaler.ledger.view import LedgerView, view_ledger

Ledger = SqlLedger | MemoryLedger

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
