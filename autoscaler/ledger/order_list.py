"""Orders of people in lists: what ``override_rows`` is for the ledger in lists."""

from dataclasses import replace
from datetime import datetime

from autoscaler.ledger.agreement import KEYS_KEPT
from autoscaler.ledger.errors import NotFound
from autoscaler.model import Override
from autoscaler.override import KeyReused, OrderKey


class OrderList:
    """Orders by id, and the keys that they were given by. Locking is the caller's."""

    def __init__(self) -> None:
        self._orders: dict[int, Override] = {}
        self._keys: dict[tuple[str, str], tuple[str, int, datetime]] = {}  # by author and key: digest, id, when

    def add(self, order: Override, key: OrderKey | None) -> Override:
        """The order with the id it got; or the one that was given by the same key before."""
        order = replace(order, id=len(self._orders) + 1)
        if key is not None:
            kept = {used: row for used, row in self._keys.items() if row[2] > order.starts_at - KEYS_KEPT}
            digest, known, _ = kept.setdefault((order.author, key.key), (key.digest, order.id, order.starts_at))
            if digest != key.digest:
                raise KeyReused(known)
            if known != order.id:
                return self._orders[known]
            self._keys = kept
        self._orders[order.id] = order
        return order

    def active(self, now: datetime) -> tuple[Override, ...]:
        """The orders that hold at ``now``, by id."""
        return tuple(order for order in self._orders.values() if order.active(now))

    def newest(self, before_id: int | None, limit: int) -> tuple[Override, ...]:
        """One page of all orders ever given, newest first."""
        found = [order for id, order in reversed(self._orders.items()) if before_id is None or id < before_id]
        return tuple(found[:limit])

    def find(self, id: int) -> Override:
        """The order of that id. NotFound."""
        if id not in self._orders:
            raise NotFound(f"there is no override {id}")
        return self._orders[id]

    def end(self, id: int, author: str, reason: str, at: datetime) -> Override:
        """The order as it stands once ended; the first end of an order wins."""
        order = self.find(id)
        if order.ended_at is None:
            order = self._orders[id] = replace(order, ended_at=at, ended_by=author, ended_reason=reason)
        return order
