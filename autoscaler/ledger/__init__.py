"""The ledger: the one memory there is, from which every decision is computed.

``open_ledger`` gives it in a database, ``view_ledger`` only to look at, ``MemoryLedger`` in lists; all keep the same
contract, documented at ``SqlLedger``.
"""

from autoscaler.ledger.errors import LedgerError, LedgerMissing, LedgerTooNew, LedgerUnavailable, NotFound
from autoscaler.ledger.memory import MemoryLedger
from autoscaler.ledger.records import Lease, PurchaseEvent, Sample, StoredDecision
from autoscaler.ledger.sql import SqlLedger, open_ledger
from autoscaler.ledger.view import LedgerView, view_ledger

Ledger = SqlLedger | MemoryLedger

__all__ = [
    "Lease",
    "Ledger",
    "LedgerError",
    "LedgerMissing",
    "LedgerTooNew",
    "LedgerUnavailable",
    "LedgerView",
    "MemoryLedger",
    "NotFound",
    "PurchaseEvent",
    "Sample",
    "SqlLedger",
    "StoredDecision",
    "open_ledger",
    "view_ledger",
]
