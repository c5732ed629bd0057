"""Courses by the thousand: which ones there are, and their run on all processors, each with a rig of its own."""

import os
import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from tests.crashes.course import Outcome, Plan, Successor
from tests.crashes.rig import Rig
from tests.crashes.troubles import Trouble


@dataclass(frozen=True, slots=True)
class Field:
    """Every crash point of one trouble with one kind of successor.

    With ``pairs``, every other first crash is also followed by a second: of those that the same daemon comes after, the
    odd ones, of those that another replica does, the even ones, so that each crash point is the first of one pair. The
    second point is drawn by ``seed`` from all effects of whoever took over. ``every``: of so many crash points in a row
    one is met, another one in each field.
    """

    trouble: Trouble
    successor: Successor
    pairs: bool = False
    seed: int = 0
    every: int = 1

    def explore(self, rig: Rig) -> Iterator[Outcome]:
        """The course without a crash, then one for each crash point there is."""
        draw = random.Random(f"{self.seed} {self.trouble.name} {self.successor}")
        yield rig.run(Plan(self.trouble, self.successor))
        for number in count(draw.randint(1, self.every), self.every):
            outcome = rig.run(Plan(self.trouble, self.successor, (number,)))
            if not outcome.points:
                return  # there is no such effect: these were all
            yield outcome
            if self._pairs(number) and outcome.effects:
                second = draw.randint(1, outcome.effects[-1])
                yield rig.run(Plan(self.trouble, self.successor, (number, second)))

    def _pairs(self, number: int) -> bool:
        if not self.pairs or self.successor.stands_still:
            return False
        return number % 2 == (self.successor is Successor.SAME)


def fields(troubles: Sequence[Trouble], *, pairs: bool, seed: int, every: int) -> list[Field]:
    """All there is to explore; what is cut off half-way has still met every trouble."""
    return [Field(trouble, successor, pairs, seed, every) for successor in Successor for trouble in troubles]


def explored(fields: Iterable[Field], processes: int | None = None) -> Iterator[tuple[Field, list[Outcome]]]:
    """Each field with what was found in it, as it is done."""
    with _pool(processes) as pool:
        waiting = {pool.submit(_explore, field): field for field in fields}
        try:
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def run_all(plans: Sequence[Plan], processes: int | None = None) -> list[Outcome]:
    """The outcome of each plan, in their order."""
    with _pool(processes) as pool:
        return list(pool.map(_run, plans, chunksize=4))


@contextmanager
def _pool(processes: int | None) -> Iterator[ProcessPoolExecutor]:
    memory = Path("/dev/shm")  # a disk would make the ledgers slow, and they need not outlive anything
    with (
        TemporaryDirectory(prefix="crashes-", dir=memory if memory.is_dir() else None) as folder,
        # Spawned, not forked: a rig forks replicas, and must not do so beside threads it knows nothing of.
        ProcessPoolExecutor(
            processes or os.cpu_count(), get_context("spawn"), initializer=_set_up, initargs=(folder,)
        ) as pool,
    ):
        yield pool


_rigs: list[Rig] = []  # this process's one


def _set_up(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for whoever gives out the work, and a rig is left whole
    _rigs.append(Rig(Path(mkdtemp(dir=folder))))


def _explore(field: Field) -> list[Outcome]:
    return list(field.explore(_rigs[0]))


def _run(plan: Plan) -> Outcome:
    return _rigs[0].run(plan)
