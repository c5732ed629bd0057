"""Hand-written stand-ins for what the shell talks to: each lists its ``calls`` and fails when told to."""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from autoscaler.decision import Evaluation
from autoscaler.model import Cluster, Gap, GapReason, Inventory, Node, Purchase, Question, Reading, Task
from tests.build import ENDPOINT, NOW, cluster


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


class FakeReader:
    """A Prometheus that knows one answer for each query."""

    def __init__(self, **answers: float | str | Gap) -> None:
        self.answers: dict[str, Any] = dict(answers)
        self.calls: list[list[str]] = []
        self.next_error: Exception | None = None

    def read(self, questions: Sequence[Question], at: datetime) -> list[Reading | Gap]:
        self.calls.append([question.query for question in questions])
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        return [self._answer(question, at) for question in questions]

    def _answer(self, question: Question, at: datetime) -> Reading | Gap:
        answer = self.answers.get(question.query, Gap(GapReason.NO_DATA, "no such series"))
        return answer if isinstance(answer, Gap) else Reading(Fraction(str(answer)), at)


class FakeCloud:
    """A cloud whose looks a test writes; ``before_look`` runs in the thread that looks."""

    def __init__(self, clock: Clock) -> None:
        self.endpoint = ENDPOINT
        self.calls: list[str] = []
        self.nodes: dict[str, list[Node]] = {}
        self.tasks: dict[str, list[Task]] = {}
        self.gaps: dict[str, Gap] = {}
        self.before_look: Callable[[str], object] = lambda cluster_id: None
        self.next_error: Exception | None = None
        self.about: Cluster = cluster()
        self._clock = clock

    def fingerprint(self) -> str:
        if self.next_error is not None:
            error, self.next_error = self.next_error, None
            raise error
        return "credential-1"

    def inventory(self, cluster_id: str) -> Inventory | Gap:
        self.calls.append(cluster_id)
        self.before_look(cluster_id)
        if cluster_id in self.gaps:
            return self.gaps[cluster_id]
        nodes, tasks = self.nodes.get(cluster_id, []), self.tasks.get(cluster_id, [])
        return Inventory(cluster_id, self._clock(), self.about, tuple(nodes), tuple(tasks))

    def task(self, task_id: str) -> Task | Gap | None:
        self.calls.append(task_id)
        found = [task for tasks in self.tasks.values() for task in tasks if task.task_id == task_id]
        return found[0] if found else None


class FlakyLedger:
    """Another ledger, with failures: before a method writes, or after it wrote and before it could say so."""

    def __init__(self, ledger: Any) -> None:
        self.calls: list[str] = []
        self.before: dict[str, Callable[[], object]] = {}  # run once, as the method is called
        self.after: dict[str, Callable[[], object]] = {}  # run once, when it has written and has not returned yet
        self._ledger = ledger
        self._errors: dict[str, list[tuple[Exception, bool]]] = {}

    def fail(self, method: str, error: Exception, *, times: int = 1, written: bool = False) -> None:
        """``written``: it happens all the same."""
        self._errors.setdefault(method, []).extend([(error, written)] * times)

    def heal(self) -> None:
        self._errors.clear()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            self.before.pop(name, lambda: None)()
            errors = self._errors.get(name)
            if not errors:
                result = method(*args, **kwargs)
                self.after.pop(name, lambda: None)()
                return result
            error, written = errors.pop(0)
            if written:
                method(*args, **kwargs)
            raise error

        return call


class Observed:
    """Whoever counts; keeps what it was told."""

    def __init__(self) -> None:
        self.evaluations: list[Evaluation] = []
        self.purchases: list[Purchase] = []

    def evaluated(self, evaluation: Evaluation, seconds: float) -> None:
        self.evaluations.append(evaluation)

    def purchases_changed(self, purchases: Iterable[Purchase]) -> None:
        self.purchases.extend(purchases)


def node(instance_id: str, *, ready: bool = True, created_at: datetime | None = None, **fields: Any) -> Node:
    """A worker of the node list, there for a day by default."""
    plain: dict[str, Any] = {"instance_type": "ens.sn1.tiny", "role": "Worker", "state": "running", "expires_at": None}
    return Node(instance_id, ready=ready, created_at=created_at or NOW - timedelta(days=1), **(plain | fields))


def nodes(count: int, prefix: str = "i") -> list[Node]:
    return [node(f"{prefix}-{n}") for n in range(1, count + 1)]


def until(condition: Callable[[], object], seconds: float = 5) -> None:
    """Wait for another thread to bring something about; fails the test if it does not."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.002)
