"""What goes wrong at the cloud during a soak: faults of its answers, fates of its sales, lists that lie.

At any time at most one of each kind waits for the next request it fits, so that about half of all purchases go well.
A fault counts once a request has met it, a list that lies as soon as it does.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from autoscaler.sandbox import Shape
from tests.system.site import Cloud

PURCHASE = "ScaleOutCluster"
READS = ("DescribeClusterDetail", "DescribeClusterNodes", "DescribeClusterTasks", "DescribeTaskInfo")
TIMEOUT = 2.0  # seconds that a daemon waits for the cloud
_NEXT_WITHIN = (0.2, 1.0)  # seconds


def _answer(status: int, code: str = "", shape: Shape = Shape.JSON_LOWER, *, sold: bool = False) -> dict[str, Any]:
    return {"kind": "answer", "status": status, "code": code, "message": "no", "shape": shape, "sold": sold}


LOST_ANSWERS: dict[str, dict[str, Any]] = {
    "cut before selling": {"kind": "cut", "sold": False},
    "reset before selling": {"kind": "cut", "sold": False, "reset": True},
    "cut after selling": {"kind": "cut", "sold": True},
    "reset after selling": {"kind": "cut", "sold": True, "reset": True},
    "sold at once, told too late": {"kind": "late", "by": TIMEOUT * 1.5},
    "sold when nobody waits any more": {"kind": "late", "by": TIMEOUT * 1.5, "processed": "late"},
    "truncated": {"kind": "truncated", "keep": 10},
    "dripping": {"kind": "dripping", "every": TIMEOUT / 20},
    "500 after selling": _answer(500, "InternalError", sold=True),
    "502 in HTML after selling": _answer(502, shape=Shape.HTML, sold=True),
    "503 without a code": _answer(503, shape=Shape.EMPTY),
    "nonce used, sold": _answer(400, "SignatureNonceUsed", sold=True),
    "nonce used, not sold": _answer(400, "SignatureNonceUsed"),
}
SLOW_ANSWERS: dict[str, dict[str, Any]] = {
    "slow": {"kind": "late", "by": TIMEOUT * 0.6},
    "slow to sell": {"kind": "late", "by": TIMEOUT * 0.6, "processed": "late"},
}
REFUSALS: dict[str, dict[str, Any]] = {
    "throttled": _answer(503, "Throttling.User", Shape.JSON_UPPER),
    "busy": _answer(400, "InvalidStatus.Cluster"),
    "no stock": _answer(400, "InventoryExceeded"),
    "policy": _answer(400, "InvalidParameter.worker_image_id"),
    "account": _answer(403, "Forbidden.RAM", Shape.JSON_UPPER),
    "gone": _answer(404, "InvalidApi.NotFound", Shape.XML),
}
UNREADABLE: dict[str, dict[str, Any]] = {
    "read cut": {"kind": "cut", "sold": False},
    "read late": {"kind": "late", "by": TIMEOUT * 1.5},
    "read truncated": {"kind": "truncated", "keep": 20},
    "read refused": _answer(503, "Throttling.User", Shape.JSON_UPPER),
}
# None of them lets workers come once their task has failed: the workers there are in the end are then those wanted.
FATES: dict[str, dict[str, Any]] = {
    "task fails": {"arrive": 0, "state": "failed", "ends_after": 2},
    "partial success": {"arrive": 1},
    "task 404 at first": {"hidden_asks": 2},
    "task not in the list": {"in_task_list": False},
    "workers late": {"joins_after": 8},
}
LISTINGS: dict[str, dict[str, Any]] = {
    "list lags": {"lag": 5},
    "list back and forth": {"back_and_forth": 5},
    "list of another total": {"total_off_by": 1},
    "list without nodes": {"empty_page": True},
}


@dataclass(slots=True)
class Mischief:
    """Makes the cloud misbehave until it is ended; ``met`` counts by kind."""

    cloud: Cloud
    clusters: Sequence[str]
    draw: random.Random
    met: Counter[str] = field(default_factory=Counter)
    _waiting: dict[str, str] = field(default_factory=dict)  # by action, "" for a fate: the kind
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to misbehave."""
        self._thread = threading.Thread(target=self._misbehave, name="mischief", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """From now on the cloud is as good as its word."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._count()
        self.cloud.order("heal")
        for cluster_id in self.clusters:
            self.cloud.order("cluster", cluster_id=cluster_id)

    def _misbehave(self) -> None:
        while not self._stop.wait(self.draw.uniform(*_NEXT_WITHIN)):
            try:
                self._count()
                self._again()
            except httpx.HTTPError:  # a machine under load: the next time
                continue

    def _count(self) -> None:
        unused = set(self.cloud.shows("unused"))
        for action in [action for action in self._waiting if action not in unused]:
            self.met[self._waiting.pop(action)] += 1

    def _again(self) -> None:
        draw = self.draw
        kinds = draw.choices((LOST_ANSWERS, SLOW_ANSWERS, REFUSALS, None), (4, 3, 2, 5))[0]
        if kinds is not None:
            self._bend(PURCHASE, kinds)
        if draw.random() < 0.2:
            self._bend(draw.choice(READS), UNREADABLE)
        if draw.random() < 0.3 and "" not in self._waiting:
            kind, fate = draw.choice(list(FATES.items()))
            self.cloud.order("fate", fate=fate)
            self._waiting[""] = kind
        cluster_id = draw.choice(self.clusters)
        if draw.random() < 0.2:
            kind, listing = draw.choice(list(LISTINGS.items()))
            self.cloud.order("cluster", cluster_id=cluster_id, listing=listing)
            self.met[kind] += 1
        else:
            self.cloud.order("cluster", cluster_id=cluster_id)

    def _bend(self, action: str, kinds: dict[str, dict[str, Any]]) -> None:
        if action not in self._waiting:
            kind, fault = self.draw.choice(list(kinds.items()))
            self.cloud.order("fault", fault=fault, action=action)
            self._waiting[action] = kind
