"""At most once, by force: ``make soak``, or ``python -m tests.soak``.

Real daemons buy from a sandbox cloud that misbehaves, by the load that a real Prometheus tells, and are killed, stopped
and cut off at random moments: one daemon on SQLite, then two and three on one PostgreSQL. The judge is the cloud's
order log. Ends with 1 if anything is wrong; then the folder with all logs and ledgers is kept.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.soak.part import Part, Tally
from tests.soak.store import InFile, InServer, Store
from tests.soak.world import World
from tests.system.postgres_server import PostgresServer
from tests.system.tcp_proxy import TcpProxy

DAEMONS = (1, 2, 3)  # of the three parts; one is on SQLite
_CLUSTERS = 10
_MOST_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts that the arguments name, and print what came of them."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--kills",
        type=int,
        default=200,
        help="kills of the first part; a fifth as many mishaps in each of the others",
    )
    parser.add_argument("--daemons", type=int, nargs="*", choices=DAEMONS, default=DAEMONS, help="only these parts")
    parser.add_argument("--minutes", type=float, default=60, help="after which no mishap is begun any more")
    parser.add_argument("--seed", type=int, default=None, help="draws the mishaps; printed when it is not given")
    asked = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by the way that leaves no process behind
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="autoscaler-soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    tallies = []
    for daemons in asked.daemons:
        of_part = folder / str(daemons)
        of_part.mkdir()
        draw = random.Random(f"{seed} {daemons}")

        def tell(text: str, daemons: int = daemons) -> None:
            print(f"{time.monotonic() - begun:5.0f} s, {_daemons(daemons)}: {text}", file=sys.stderr, flush=True)

        with (
            World(of_part, _CLUSTERS, random.Random(draw.random())) as world,
            _store(daemons, of_part) as store,
        ):
            part = Part(
                daemons=daemons, world=world, store=store, draw=draw, tell=tell, gives_up_at=begun + asked.minutes * 60
            )
            kills = asked.kills if daemons == 1 else 0
            tallies.append(part.run(kills=kills, mishaps=0 if kills else -(-asked.kills // 5)))
    wrong = _report(tallies, time.monotonic() - begun)
    if wrong:
        print(f"logs and ledgers: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


@contextmanager
def _store(daemons: int, folder: Path) -> Iterator[Store]:
    if daemons == 1:
        yield InFile(folder)
        return
    with PostgresServer() as server, TcpProxy(server.port) as proxy:
        yield InServer(server, proxy)


def _report(tallies: Sequence[Tally], seconds: float) -> int:
    for tally in tallies:
        kinds = tally.stops + tally.database
        print(
            f"{_daemons(tally.daemons)}: {tally.kills} kills, {sum(tally.stops.values())} stops, "
            f"{sum(tally.faults.values())} faults, {tally.hours:.0f} h by their clock; {tally.purchases} purchases, "
            f"{tally.orders} orders of {tally.workers} workers"
            + "".join(f"\n  {n} × {kind}" for kind, n in sorted(kinds.items()))
        )
    faults = sum((tally.faults for tally in tallies), Counter[str]())
    print("faults: " + ", ".join(f"{kind} {number}" for kind, number in faults.most_common()))
    problems = [problem for tally in tallies for problem in tally.problems]
    print(f"in {seconds / 60:.0f} min:")
    for name, number in (
        ("kills", sum(tally.kills for tally in tallies)),
        ("stops", sum(sum(tally.stops.values()) for tally in tallies)),
        ("faults", sum(faults.values())),
        ("orders", sum(tally.orders for tally in tallies)),
        ("doubled", sum(len(tally.doubled) for tally in tallies)),
        ("unknown, settled by evidence", sum(tally.by_evidence for tally in tallies)),
        ("unknown, settled by the policy's own wish", sum(tally.by_wish for tally in tallies)),
        ("unknown, left to a scripted person", sum(tally.by_person for tally in tallies)),
        ("never settled", sum(len(tally.never_settled) for tally in tallies)),
        ("wrong in all", len(problems)),
    ):
        print(f"  {number:>6} {name}")
    for problem in problems[:_MOST_SHOWN]:
        print(f"WRONG: {problem}")
    return len(problems)


def _daemons(number: int) -> str:
    return "1 daemon on SQLite" if number == 1 else f"{number} daemons on PostgreSQL"


if __name__ == "__main__":
    sys.exit(main())
