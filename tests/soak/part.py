"""One part of a soak: so many daemons on one ledger, mishap after mishap, then peace until all is settled.

What happens when is drawn; how the machine's threads and processes fall is not, so that a seed gives the same mishaps
and not the same run. While a daemon is awake the clock passes as real time does; it is moved when all are dead or stand
still, as if hours had passed before they were started again.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from tests.crashes.judge import doubled, never_settled
from tests.soak.deck import Deck
from tests.soak.mischief import Mischief
from tests.soak.person import Person
from tests.soak.replica import LEDGER_AWAY, Point, Replica
from tests.soak.store import Event, Store
from tests.soak.world import World

LEASE_SECONDS = 15.0
SIGNATURE = timedelta(minutes=15)  # how long the cloud takes a signed request
# Seconds until the next mishap. Of several, the successors of the dead wait for their leases first, by the real clock.
_LIVES_ALONE = (0.0, 4.5)
_LIVES_OF_SEVERAL = (0.0, 12.0)
_HALTS_WITHIN = 8.0  # seconds in which something is usually bought
_OVERSLEEPS = (1.0, 5.0)  # seconds beyond a lease
_STILL_SECONDS = 4.0  # without a change: then only time helps
_PEACE_SECONDS = 600.0  # in which all has to be settled
_PAUSES = (  # while all are dead or suspended: how often, and how long in seconds
    (6, (LEASE_SECONDS + 1, 60)),
    (3, (60, 6 * 60)),
    (1, (17 * 60, 31 * 60)),
)


@dataclass(slots=True)
class Tally:
    """What happened in a part, and what came of it."""

    daemons: int
    kills: int = 0
    stops: Counter[str] = field(default_factory=Counter)  # by their kind
    database: Counter[str] = field(default_factory=Counter)  # what was done to the ledger's server
    faults: Counter[str] = field(default_factory=Counter)  # by their kind
    orders: int = 0
    workers: int = 0
    purchases: int = 0
    doubled: list[str] = field(default_factory=list)
    by_evidence: int = 0  # unknown purchases settled by what the cloud shows, or by an answer that came late
    by_wish: int = 0  # by the policy's own wish, after the quiet period
    by_person: int = 0
    never_settled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # all else that must not be
    hours: float = 0.0  # by the soak's clock

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.doubled, *self.never_settled, *self.wrong]


class Part:
    """Runs one part in a world."""

    def __init__(
        self,
        *,
        daemons: int,
        world: World,
        store: Store,
        draw: random.Random,
        tell: Callable[[str], None],
        gives_up_at: float,
    ) -> None:
        """``gives_up_at``: by the monotonic clock; mishaps end then, whatever their number."""
        self._world = world
        self._store = store
        self._draw = draw
        self._tell = tell
        self._gives_up_at = gives_up_at
        self._person = Person(world, store.url)
        self._mischief = Mischief(world.cloud, world.clusters, random.Random(draw.random()))
        self._replicas: list[Replica] = []
        self._asleep: dict[Replica, float] = {}  # those that stand still, and when they wake
        self._started = 0
        mishaps = self._alone() if daemons == 1 else self._of_several()
        self._mishaps = Deck((mishap for mishap, often in mishaps for _ in range(often)), draw)
        self._points = Deck(Point, draw)
        self._troubles = Deck(store.troubles, draw)
        self.tally = Tally(daemons)

    def run(self, *, kills: int, mishaps: int) -> Tally:
        """Mishaps until there were so many kills and so many in all, then peace, then the verdict."""
        began_at = self._world.clock()
        self._mischief.begin()
        try:
            done = 0
            while (self.tally.kills < kills or done < mishaps) and time.monotonic() < self._gives_up_at:
                self._complete()
                self._pass(self._draw.uniform(*(_LIVES_ALONE if self.tally.daemons == 1 else _LIVES_OF_SEVERAL)))
                self._mishaps.next()()
                done += 1
                if done % 10 == 0:
                    self._tell(f"{self.tally.kills} kills, {done} mishaps, {len(self._world.orders())} orders")
            if self.tally.kills < kills or done < mishaps:
                self._wrong(f"ended by its time after {self.tally.kills} kills and {done} mishaps")
            self._settle()
        finally:
            for replica in self._replicas:
                replica.kill()
            self._person.close()
        self._judge()
        self.tally.hours = (self._world.clock() - began_at) / timedelta(hours=1)
        return self.tally

    # Replicas

    def _start(self) -> None:
        self._started += 1
        environment = self._world.environment(self._store.url)
        begin = self._person.begins()
        self._replicas.append(Replica(self._started, self._world.folder, environment, self._world.clock, begin=begin))

    def _complete(self) -> None:
        """Bury those that ended by themselves, and have as many awake as there should be."""
        for replica in [replica for replica in self._replicas if replica.status is not None]:
            self._replicas.remove(replica)
            if replica.status != LEDGER_AWAY:
                self._wrong(f"{replica.name} ended with {replica.status}: {replica.tail()}")
        while len(self._awake()) < self.tally.daemons:
            self._start()

    def _awake(self) -> list[Replica]:
        return [replica for replica in self._replicas if replica not in self._asleep]

    def _kill(self, replica: Replica) -> None:
        if replica.status is None:
            replica.kill()
            self.tally.kills += 1
            self._replicas.remove(replica)

    def _fall_asleep(self, replica: Replica, kind: str, seconds: float) -> None:
        self.tally.stops[kind] += 1
        self._asleep[replica] = time.monotonic() + seconds

    def _pass(self, seconds: float) -> None:
        """Let so much time pass; wake those whose time it is, and let the person look."""
        ends = time.monotonic() + seconds
        while True:
            for replica, wakes_at in tuple(self._asleep.items()):
                if wakes_at <= time.monotonic():
                    self._wake(replica)
            left = ends - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(0.1, left))
        self._person.visit()

    def _wake(self, replica: Replica) -> None:
        """Let it go on, beside those that were started in its place: one more than there should be, for a while."""
        replica.go_on()
        del self._asleep[replica]

    # Mishaps

    def _alone(self) -> Sequence[tuple[Callable[[], None], int]]:
        return (
            (self._all_die, 12),
            (self._one_dies_in_between, 6),
            (self._one_sleeps_long, 2),
            (self._all_are_suspended, 1),
        )

    def _of_several(self) -> Sequence[tuple[Callable[[], None], int]]:
        return (
            (self._one_dies, 6),
            (self._one_dies_in_between, 3),
            (self._all_die, 2),
            (self._all_are_suspended, 5),
            (self._one_stands_still, 3),
            (self._one_stands_still_in_between, 5),
            (self._one_sleeps_long, 3),
            (self._the_ledger_suffers, 6),
        )

    def _one_dies(self) -> None:
        self._kill(self._draw.choice(self._awake()))

    def _all_die(self) -> None:
        """All die, and minutes or hours pass until they are started again."""
        for replica in self._awake():
            self._kill(replica)
        self._time_passes()

    def _all_are_suspended(self) -> None:
        """Their machine is, for minutes or hours: all stand still, wherever they are, and go on."""
        awake = self._awake()
        for replica in awake:
            replica.stop()
        self._time_passes()
        for replica in awake:
            replica.go_on()
        self.tally.stops["with all others, their machine suspended"] += len(awake)

    def _time_passes(self) -> None:
        low, high = self._draw.choices([span for _, span in _PAUSES], [weight for weight, _ in _PAUSES])[0]
        self._world.pass_time(timedelta(seconds=self._draw.uniform(low, high)))

    def _one_dies_in_between(self) -> None:
        """Whoever comes first to the point dies there; one that is alone is started again later."""
        for victim in self._halt(self._points.next(), signal.SIGKILL):
            victim.kill()  # it may not be quite dead
            self.tally.kills += 1
            self._replicas.remove(victim)
        if self.tally.daemons == 1:
            self._all_die()

    def _one_stands_still(self) -> None:
        victim = self._draw.choice(self._awake())
        victim.stop()
        self._fall_asleep(victim, "longer than a lease", LEASE_SECONDS + self._draw.uniform(*_OVERSLEEPS))

    def _one_stands_still_in_between(self) -> None:
        point = self._points.next()
        for victim in self._halt(point, signal.SIGSTOP):
            self._fall_asleep(victim, f"{point}, longer than a lease", LEASE_SECONDS + self._draw.uniform(*_OVERSLEEPS))

    def _one_sleeps_long(self) -> None:
        """One stands still in between for longer than a signature lives; the others die, and their successors work."""
        point = self._points.next()
        victims = self._halt(point, signal.SIGSTOP)
        for victim in victims:
            self._fall_asleep(victim, f"{point}, for 16 minutes", self._draw.uniform(1.0, LEASE_SECONDS + 4))
        for replica in self._awake():
            self._kill(replica)
        self._world.pass_time(SIGNATURE + timedelta(seconds=self._draw.uniform(30, 120)))

    def _the_ledger_suffers(self) -> None:
        kind = self._troubles.next()
        self._store.trouble(kind, self._draw)
        self.tally.database[kind] += 1

    def _halt(self, point: Point, how: signal.Signals) -> list[Replica]:
        """Those that come to the point soonest, and halt there; none where nobody does for some seconds."""
        awake = self._awake()
        for replica in awake:
            replica.halt_at(point, how)
        ends = time.monotonic() + _HALTS_WITHIN
        while time.monotonic() < ends and not any(replica.halted for replica in awake):
            time.sleep(0.02)
        return [replica for replica in awake if not replica.let_off()]

    # The end

    def _settle(self) -> None:
        """Peace: no faults, no more load; restarts by the hour, in order, until nothing is left to do."""
        self._mischief.end()
        self._world.rest()
        for replica in tuple(self._asleep):
            self._wake(replica)
        restarts, ends = 0, time.monotonic() + _PEACE_SECONDS
        while time.monotonic() < ends:
            self._complete()
            calm = self._comes_to_rest()
            self._end_all()
            if calm:
                self._tell(f"calm after {restarts} restarts")
                return
            self._world.pass_time(timedelta(minutes=(7, 32)[restarts % 2]))
            restarts += 1
        self._wrong(f"not calm after {restarts} restarts")

    def _comes_to_rest(self) -> bool:
        """Wait until nothing changes any more for some seconds; whether nothing is left to do."""
        seen, changed_at = None, time.monotonic()
        while time.monotonic() < changed_at + _STILL_SECONDS:
            ready, rows = self._world.ready(), self._store.rows()
            if ready == self._world.wanted and not never_settled(rows):
                return True
            if (ready, rows) != seen:
                seen, changed_at = (ready, rows), time.monotonic()
            self._pass(0.3)
        return False

    def _end_all(self) -> None:
        for replica in self._replicas:
            status = replica.end()
            # One that has only just been forked does not listen yet.
            if status not in (0, -signal.SIGTERM, LEDGER_AWAY):
                self._wrong(f"{replica.name} ended with {status} when told to: {replica.tail()}")
                replica.kill()
        self._replicas.clear()

    def _judge(self) -> None:
        tally, orders, rows = self.tally, self._world.orders(), self._store.rows()
        tally.faults = self._mischief.met
        tally.orders, tally.workers, tally.purchases = len(orders), sum(order.count for order in orders), len(rows)
        tally.doubled = doubled(rows, orders, self._world.posts())
        tally.never_settled = never_settled(rows)
        for cluster_id, ready in self._world.ready().items():
            wanted = self._world.wanted[cluster_id]
            if ready != wanted:
                self._wrong(f"{cluster_id} has {ready} workers in the end, {wanted} were wanted")
        self._count_unknown(self._store.events())

    def _count_unknown(self, events: list[Event]) -> None:
        settled = {
            event.purchase_id: event for event in events if event.before == "unknown" and event.after != "unknown"
        }
        for event in settled.values():
            if event.author is not None:
                self.tally.by_person += 1
            elif event.after == "not_bought":
                self.tally.by_wish += 1
            else:
                self.tally.by_evidence += 1

    def _wrong(self, problem: str) -> None:
        self.tally.wrong.append(problem)
        self._tell(f"WRONG: {problem}")
