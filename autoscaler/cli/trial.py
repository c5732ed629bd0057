"""A trial: the policies and variants that ``simulate`` was asked for, with their load, each simulated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoscaler.cli.candidates import Candidate
from autoscaler.cli.failure import Exit, fail
from autoscaler.cli.history import Progress, Wanted, loads_of_file, loads_of_prometheus, progress_line
from autoscaler.cli.past import Past, past_of
from autoscaler.cli.policies import chosen
from autoscaler.policy import Policy, PrometheusServer
from autoscaler.settings import Settings
from autoscaler.simulation import Load, Market, simulate
from autoscaler.simulation.figures import figures, needed
from autoscaler.simulation.grid import ready_at_start
from autoscaler.simulation.optimum import Optimum, OptimumUnavailable, optimum
from autoscaler.simulation.variants import VariantError, variant


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    candidates: tuple[Candidate, ...]  # each policy as it is, and after it its variants
    optima: Mapping[str, Optimum]  # by candidate; empty where none was asked for
    past: Mapping[str, Past]  # by policy, what the daemon did; empty where nobody asked
    unknown: tuple[str, ...]  # policies of which the ledger knows nothing in that time, where somebody asked

    @classmethod
    def of(
        cls,
        named: Sequence[str],
        changes: Sequence[str],
        settings: Settings,
        *,
        file: Path | None,
        wanted: Wanted,
        market: Market,
        seeks_optimum: bool,
        against_ledger: bool,
    ) -> "Trial":
        """Everything simulated; the command fails where something cannot be."""
        drafts = _drafts(named, changes, settings)
        with progress_line() as progress:
            loads = _loads(drafts, file, settings, wanted, progress)
            times = {draft.policy.name: (load.start_at, load.end_at) for draft, load in zip(drafts, loads, strict=True)}
            past = past_of(times, settings) if against_ledger else {}
            candidates = tuple(
                _simulated(draft, load, market, wanted, past.get(draft.policy.name), progress)
                for draft, load in zip(drafts, loads, strict=True)
            )
            optima = {candidate.name: _optimum(candidate, progress) for candidate in candidates if seeks_optimum}
        unknown = tuple(name for name in times if name not in past) if against_ledger else ()
        return cls(candidates, optima, past, unknown)


@dataclass(frozen=True, slots=True)
class _Draft:
    """One policy to be simulated."""

    name: str
    changes: str
    policy: Policy
    servers: Mapping[str, PrometheusServer]


def _drafts(named: Sequence[str], changes: Sequence[str], settings: Settings) -> list[_Draft]:
    drafts: list[_Draft] = []
    problems: dict[str, None] = {}
    for argument in dict.fromkeys(named):
        policy, loaded = chosen(argument, settings, alone=True)
        others = {draft.name for draft in drafts}
        name = argument if policy.name in others else policy.name
        drafts.append(_Draft(name, "", policy, loaded.shared.prometheus))
        for change in dict.fromkeys(changes):
            title = change if len(set(named)) == 1 else f"{name}: {change}"
            try:
                drafts.append(_Draft(title, change, variant(policy, change), loaded.shared.prometheus))
            except VariantError as error:
                problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        fail(Exit.USAGE, "a variant is no policy:\n" + "\n".join(f"  {problem}" for problem in problems))
    for draft in drafts:
        if draft.policy.prometheus not in {"default", *draft.servers}:
            fail(Exit.USAGE, f"--set: prometheus: there is no server {draft.policy.prometheus!r} in _shared.yaml")
    return drafts


def _loads(
    drafts: Sequence[_Draft], file: Path | None, settings: Settings, wanted: Wanted, progress: Progress
) -> list[Load]:
    if file is not None:
        return loads_of_file(file, [draft.policy for draft in drafts], wanted, progress)
    loads: dict[int, Load] = {}
    while len(loads) < len(drafts):  # once for each folder of policies: servers are named within it
        servers = next(draft.servers for number, draft in enumerate(drafts) if number not in loads)
        numbers = [number for number, draft in enumerate(drafts) if draft.servers == servers]
        policies = [drafts[number].policy for number in numbers]
        found = loads_of_prometheus(policies, servers, settings, wanted, progress)
        loads |= dict(zip(numbers, found, strict=True))
    return [loads[number] for number in range(len(drafts))]


def _simulated(
    draft: _Draft, load: Load, market: Market, wanted: Wanted, past: Past | None, progress: Progress
) -> Candidate:
    ready, started = ready_at_start(draft.policy, load, wanted.ready)
    told = partial(progress.tell, f"simulating {draft.name}")
    overrides = past.overrides if past is not None else ()
    simulation = simulate(draft.policy, load, market, ready=ready, overrides=overrides, progress=told)
    needs = needed(simulation.policy, load)
    return Candidate(draft.name, draft.changes, draft.policy, simulation, figures(simulation), needs, started)


def _optimum(candidate: Candidate, progress: Progress) -> Optimum:
    progress.tell(f"looking for the cheapest of {candidate.name}", 0, 1)
    try:
        return optimum(candidate.simulation)
    except OptimumUnavailable as error:
        progress.end()
        fail(Exit.USAGE, str(error))
