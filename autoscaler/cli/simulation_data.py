"""Simulations for programs: JSON of what came of each, and CSV of its course."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoscaler.cli.candidates import Candidate
from autoscaler.cli.failure import Exit, fail
from autoscaler.cli.output import as_object, print_json
from autoscaler.cli.trial import Trial
from autoscaler.simulation.timeline import moments

_COLUMNS = ("time", "simulation", "needed", "serving", "in_flight", "lost", "paid", "outcome", "reason", "add")


def print_simulations(trial: Trial) -> None:
    """Print each candidate: what it rests on, its figures, its purchases; equal for equal inputs and seed."""
    print_json(
        {
            "simulations": [_as_json(candidate, trial) for candidate in trial.candidates],
            "daemon": [_past_as_json(trial, name) for name in trial.past],
        }
    )


def write_course(path: Path, trial: Trial) -> None:
    """Write a row for each evaluation of each candidate; the command fails where that cannot be written."""
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for candidate in trial.candidates:
                writer.writerows(_course(candidate))
    except OSError as error:
        fail(Exit.USAGE, f"{path} cannot be written: {error.strerror}")


def _course(candidate: Candidate) -> Iterator[tuple[object, ...]]:
    for moment in moments(candidate.simulation):
        level, reason = moment.level, moment.reason
        yield (
            f"{moment.at:%Y-%m-%dT%H:%M:%SZ}",
            candidate.name,
            moment.needed,
            level.serving,
            level.in_flight,
            level.lost,
            level.paid,
            reason.outcome.value,
            reason.value,
            moment.add,
        )


def _as_json(candidate: Candidate, trial: Trial) -> dict[str, Any]:
    simulation = candidate.simulation
    load, market, figures = simulation.load, simulation.market, candidate.figures
    return {
        "name": candidate.name,
        "policy": candidate.policy.name,
        "changes": candidate.changes or None,
        "version": candidate.policy.version,
        "load": {
            "source": load.source,
            "start_at": load.start_at,
            "end_at": load.end_at,
            "step": load.step,
            "evaluations": load.ticks,
            "assumed": load.assumed,
        },
        "market": {"join": market.join, "failing": market.failing, "seed": market.seed},
        "ready": simulation.ready,
        "ready_source": candidate.started,
        "figures": as_object(figures),
        "optimum": trial.optima.get(candidate.name),
        "purchases": [
            {
                "at": purchase.reserved_at,
                "asked": purchase.asked,
                "arrived": purchase.arrived,
                "failed": purchase.failed,
                "state": purchase.state,
                "sentence": simulation.evaluation_at(purchase.reserved_at).decision.sentence,
            }
            for purchase in simulation.purchases
        ],
    }


def _past_as_json(trial: Trial, policy: str) -> dict[str, Any]:
    past = trial.past[policy]
    return {
        "policy": policy,
        "since": past.since,
        "bought": past.bought,
        "peak_serving": past.peak_serving,
        "held": [
            {"reason": reason, "times": times, "lasted": past.lasted[reason]}
            for reason, times in sorted(past.reasons.items(), key=lambda item: (-item[1], item[0]))
        ],
        "purchases": [
            {"at": purchase.reserved_at, "asked": purchase.asked, "arrived": purchase.arrived, "state": purchase.state}
            for purchase in past.purchases
        ],
    }
