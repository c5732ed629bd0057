"""Leases: which clusters this process may work for, kept in the ledger and shared with other replicas.

They keep work from being done twice; that nothing is bought twice rests on the purchase's row, not on them.
"""

import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial
from typing import Protocol

# Another replica takes over this long after the last renewal.
LEASE = timedelta(seconds=15)
# We stop counting on ours a little sooner: the ledger's clock started it before its answer reached us.
MARGIN = timedelta(seconds=3)

# Seconds by a clock that nobody sets; where there is one, that also goes on while the machine is suspended.
elapsed: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class Ledger(Protocol):
    """Where leases are kept; its clock rules them."""

    def lease(
        self, holder: str, clusters: Collection[str], ttl: timedelta, keep: Collection[str] = ()
    ) -> frozenset[str]: ...

    def release(self, holder: str) -> None: ...


class Leases:
    """The leases of one process, named ``holder``."""

    def __init__(self, ledger: Ledger, holder: str, timer: Callable[[], float] = elapsed) -> None:
        self.holder = holder
        self._ledger = ledger
        self._timer = timer
        self._lock = threading.Lock()
        self._held: frozenset[str] = frozenset()
        self._until = 0.0
        self._released = False

    def held(self) -> frozenset[str]:
        """The clusters whose lease this process holds now; none when it could not renew them in time."""
        return self._held if self._timer() < self._until else frozenset()

    def renew(self, clusters: Collection[str], keep: Collection[str] = ()) -> None:
        """Take or renew the leases of this process's share of ``clusters``. Raises what the ledger raises.

        What is more than the share is given up, but for ``keep``: those of the clusters with a purchase in hand.
        """
        with self._lock:
            # A renewal that came after the release would keep the clusters from another replica for nothing.
            if self._released:
                return
            asked_at = self._timer()
            self._held = self._ledger.lease(self.holder, clusters, LEASE, keep)
            self._until = asked_at + (LEASE - MARGIN).total_seconds()

    def release(self) -> None:
        """Give all of them back for good, so that another replica need not wait."""
        with self._lock:
            self._released = True
            self._held = frozenset()
            self._ledger.release(self.holder)
