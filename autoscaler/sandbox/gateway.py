"""What stands between the wire and the cloud's world: signature, operation, faults, and a log of it all.

A fault is taken when a request arrives, by its action. What it bends is the answer: whether the request was processed
before is decided here and nowhere else, because that is what a buyer cannot see.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from autoscaler.sandbox.api import VERSION, Call, Operation, Result, operation_of
from autoscaler.sandbox.faults import Answer, Fault, Late, bend
from autoscaler.sandbox.refusals import Refusal, Shape, json_body, refusal_body, xml_body
from autoscaler.sandbox.signature import Verifier
from autoscaler.sandbox.wire import Cutoff, Reply, Request
from autoscaler.sandbox.world import World


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request as it was received, and what became of it."""

    at: datetime
    method: str
    path: str
    query: str
    nonce: str | None
    status: int | None  # None: the connection was cut without an answer
    code: str | None  # of a refusal
    sold: bool


@dataclass(frozen=True, slots=True)
class _Processed:
    reply: Reply
    code: str | None = None
    sold: bool = False


class Gateway:
    """Answers the API's requests.

    ``pause`` waits in real time and is False if it was cut short; ``lock`` guards the world and all that is here.
    """

    def __init__(
        self,
        world: World,
        verifier: Verifier,
        *,
        now: Callable[[], datetime],
        pause: Callable[[timedelta], bool],
        lock: threading.RLock,
    ) -> None:
        self.faults: deque[tuple[str, Fault]] = deque()  # action and fault, each used once
        self.standing: dict[str, Fault] = {}  # by action, used when no other is left
        self.log: list[LoggedRequest] = []
        self._world = world
        self._verifier = verifier
        self._now = now
        self._pause = pause
        self._lock = lock

    def answer(self, request: Request) -> Reply | Cutoff:
        """Process a request, or seem to."""
        try:
            operation = operation_of(request)
        except Refusal as refusal:
            with self._lock:
                reply = self._refused(request, refusal).reply
                self._log(request, reply, refusal.code, sold=False)
                return reply
        fault = self._take_fault(operation.action)
        if isinstance(fault, Late) and fault.processed == "late" and not self._pause(fault.by):
            return Cutoff()  # what lay in the queue of a cloud that went down was never processed
        with self._lock:
            done: list[_Processed] = []

            def process() -> Reply:
                done.append(self._process(request, operation))
                return done[-1].reply

            answer = bend(fault, process, self._written)
            code = fault.code if isinstance(fault, Answer) else done[0].code if done else None
            self._log(request, answer, code, sold=bool(done and done[0].sold))
            return answer

    def _take_fault(self, action: str) -> Fault | None:
        with self._lock:
            for position, (bent, fault) in enumerate(self.faults):
                if bent == action:
                    del self.faults[position]
                    return fault
            return self.standing.get(action)

    def _process(self, request: Request, operation: Operation) -> _Processed:
        try:
            self._verifier.verify(request, self._now())
            if request.header("x-acs-version") != VERSION:
                raise Refusal(400, "InvalidVersion", "Specified parameter Version is not valid.", Shape.JSON_UPPER)
            if request.header("x-acs-action") != operation.action:
                raise Refusal(404, "InvalidApi.NotFound", "x-acs-action does not fit the path.", Shape.JSON_UPPER)
            result = operation.perform(Call(self._world, request, self._now()), operation.subject(request))
        except Refusal as refusal:
            return self._refused(request, refusal)
        return _Processed(self._succeeded(request, result), sold=result.order is not None)

    def _succeeded(self, request: Request, result: Result) -> Reply:
        document = {**result.document, "request_id": self._request_id()}
        content_type, body = json_body(document) if _takes_json(request) else xml_body(document)
        return Reply(result.status, body, content_type, self._now())

    def _refused(self, request: Request, refusal: Refusal) -> _Processed:
        json_asked = _takes_json(request) or refusal.shape not in (Shape.JSON_UPPER, Shape.JSON_LOWER)
        shape = refusal.shape if json_asked else Shape.XML
        return _Processed(self._refusal(shape, refusal.status, refusal.code, refusal.message), refusal.code)

    def _written(self, answer: Answer) -> Reply:
        if answer.body is not None:
            return Reply(answer.status, answer.body.encode(), at=self._now())
        return self._refusal(answer.shape, answer.status, answer.code, answer.message)

    def _refusal(self, shape: Shape, status: int, code: str, message: str) -> Reply:
        content_type, body = refusal_body(
            shape, status=status, code=code, message=message, request_id=self._request_id()
        )
        return Reply(status, body, content_type, self._now())

    def _request_id(self) -> str:
        return f"00000000-0000-4000-8000-{len(self.log) + 1:012d}"

    def _log(self, request: Request, answer: Reply | Cutoff, code: str | None, *, sold: bool) -> None:
        self.log.append(
            LoggedRequest(
                at=self._now(),
                method=request.method,
                path=request.path,
                query=request.query,
                nonce=request.header("x-acs-signature-nonce"),
                status=answer.status if isinstance(answer, Reply) else None,
                code=code,
                sold=sold,
            )
        )


def _takes_json(request: Request) -> bool:
    return "json" in (request.header("accept") or "")
