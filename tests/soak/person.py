"""The person on call of a soak, by a script: says of unknown purchases what the cloud's console shows, ends refusals.

A person is slow on purpose: evidence comes first. What no order shows may be called "not bought" only from the instant
on at which that is certain; the ledger refuses it before.
"""

import time
from contextlib import suppress
from datetime import timedelta
from functools import partial

from autoscaler.ledger import LedgerError, SqlLedger, open_ledger
from autoscaler.model import Purchase, PurchaseState
from autoscaler.purchase import TASK_LATEST, CannotSettle, retried, settled_bought, settled_not_bought
from tests.soak.world import World

_NAME = "the scripted person"
_LEAVES_IT = TASK_LATEST + timedelta(minutes=2)  # until then evidence has not had its chance
_LOOKS_ON = 6.0  # seconds in which the daemons may look once more


class Person:
    """Looks at a world's ledger now and then."""

    def __init__(self, world: World, url: str) -> None:
        self._world = world
        self._url = url
        self._opened: SqlLedger | None = None
        self._noticed: dict[int, float] = {}

    def begins(self) -> bool:
        """Whether the ledger is known not to have been used: then a daemon is told to begin it."""
        with suppress(LedgerError):
            return not self._ledger.in_use()
        return False

    def visit(self) -> None:
        """Settle what has been unknown for long, and end refusals; what cannot be said yet waits for the next time."""
        with suppress(LedgerError):
            waiting = self._ledger.purchases(states={PurchaseState.UNKNOWN, PurchaseState.REJECTED}, limit=None)
            for purchase in waiting:
                with suppress(CannotSettle):
                    if purchase.state is PurchaseState.REJECTED:
                        self._retry(purchase)
                    elif self._patient_enough(purchase):
                        self._settle(purchase)

    def close(self) -> None:
        """Leave."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _ledger(self) -> SqlLedger:
        if self._opened is None:
            self._opened = open_ledger(self._url, clock=self._world.clock)
        return self._opened

    def _retry(self, purchase: Purchase) -> None:
        now = self._world.clock()
        self._ledger.change(purchase.id, partial(retried, now=now), now, "may be tried again: mended", _NAME)

    def _patient_enough(self, purchase: Purchase) -> bool:
        if self._world.clock() < (purchase.sent_at or purchase.signed_at) + _LEAVES_IT:
            return False
        noticed_at = self._noticed.setdefault(purchase.id, time.monotonic())
        return time.monotonic() > noticed_at + _LOOKS_ON

    def _settle(self, purchase: Purchase) -> None:
        now = self._world.clock()
        sold = sum(order.count for order in self._world.orders() if order.nonce == purchase.nonce)
        if sold:
            said, what = partial(settled_bought, bought=sold, now=now), f"bought {sold}: the console shows them"
        else:
            said, what = partial(settled_not_bought, now=now), "not bought: no order in the billing centre"
        self._ledger.change(purchase.id, said, now, what, _NAME)
