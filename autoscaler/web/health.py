"""/healthz and /readyz: is the daemon worth keeping, is it doing its work.

/healthz looks at the scheduler's heartbeat and the pools and at nothing outside, because its failure has the daemon
restarted, which mends no database. /readyz tells of the rest. Both name every check and what is wrong with it.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Protocol

from fastapi import APIRouter
from fastapi.responses import JSONResponse

# The heartbeat is a job of the scheduler's own every few seconds. Ten missed in a row are no busy moment.
OLDEST_HEARTBEAT = timedelta(seconds=30)

# Below kubelet's own default of 1 s for a probe, so that its log has our words and not "timeout".
LEDGER_PATIENCE = timedelta(milliseconds=800)


class Vitals(Protocol):
    """What is asked of the daemon. All but ledger_problem answer at once, from memory."""

    def heartbeat_age(self) -> timedelta | None:
        """Time since the scheduler's last heartbeat, by a clock that never jumps; None: none yet."""

    def pools(self) -> Mapping[str, bool]:
        """Of each pool, by name: whether it takes work."""

    def policies(self) -> int | None:
        """Number of policies that are evaluated; None: they are not loaded yet."""

    def unevaluated(self) -> int:
        """Number of those whose first evaluation has not ended yet."""

    def ledger_problem(self) -> str | None:
        """Asks the ledger; what is wrong, without secrets, or None. May take its time."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    ok: bool
    says: str


def routes(vitals: Vitals) -> APIRouter:
    """The two routes over ``vitals``."""
    router = APIRouter()
    ledger = _LedgerProbe(vitals)

    # Both are coroutines: waiting for one of the threads that slower answers share would make health depend on those.
    @router.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz() -> JSONResponse:
        return _answer({"heartbeat": _heartbeat(vitals), **_pools(vitals)})

    @router.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz() -> JSONResponse:
        return _answer({"ledger": await ledger.check(), "policies": _policies(vitals), "first_round": _round(vitals)})

    return router


def _answer(checks: Mapping[str, Check]) -> JSONResponse:
    ok = all(check.ok for check in checks.values())
    body = {"status": "ok" if ok else "failing", "checks": {name: asdict(check) for name, check in checks.items()}}
    return JSONResponse(body, status_code=200 if ok else 503)


def _heartbeat(vitals: Vitals) -> Check:
    age = vitals.heartbeat_age()
    if age is None:
        return Check(False, "the scheduler has not run yet")
    return Check(age <= OLDEST_HEARTBEAT, f"the scheduler ran {age.total_seconds():.1f} s ago")


def _pools(vitals: Vitals) -> dict[str, Check]:
    return {
        f"{name}_pool": Check(alive, "takes work" if alive else "takes no more work")
        for name, alive in vitals.pools().items()
    }


def _policies(vitals: Vitals) -> Check:
    number = vitals.policies()
    return Check(number is not None, "not loaded yet" if number is None else f"{number} loaded")


def _round(vitals: Vitals) -> Check:
    left = vitals.unevaluated()
    return Check(left == 0, "done" if left == 0 else f"{left} not evaluated yet")


class _LedgerProbe:
    """Asks the ledger, one question at a time: one that hangs holds a single thread, however often it is asked."""

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._question: Future[str | None] | None = None

    async def check(self) -> Check:
        if self._question is None or self._question.done():
            self._question = Future()
            # Not a pool's thread: the interpreter would wait for a hanging one when it exits.
            threading.Thread(target=self._ask, args=(self._question,), name="readyz", daemon=True).start()
        answer = asyncio.wrap_future(self._question)
        if not (await asyncio.wait([answer], timeout=LEDGER_PATIENCE.total_seconds()))[0]:
            return Check(False, f"has not answered within {LEDGER_PATIENCE.total_seconds()} s")
        problem = answer.result()
        return Check(problem is None, problem or "answers")

    def _ask(self, question: Future[str | None]) -> None:
        try:
            question.set_result(self._vitals.ledger_problem())
        except Exception as error:  # whatever it is, whoever waits has to hear of it
            question.set_exception(error)
