"""An evaluation for people: the sentence, every rule's verdict, and the readings and the supply they rest on."""

from collections.abc import Iterator
from datetime import datetime

import click

from autoscaler.cli.output import NOTHING, ago, count, instant, length, print_fields, print_table
from autoscaler.decision import Decision, Evaluation
from autoscaler.facts import Facts
from autoscaler.model import Capacity, Gap, Reading
from autoscaler.strategy import number

_BUYS = {True: "dry run: purchases are only imagined", False: "live: purchases are made"}


def print_explanation(evaluation: Evaluation) -> None:
    """Print an evaluation; its first line is the decision's sentence."""
    facts, decision = evaluation.facts, evaluation.decision
    click.echo(f"{decision.sentence}\n")
    rows = [
        (verdict.rule, str(verdict.add), verdict.reason.value if verdict.reason else "", verdict.says)
        for verdict in decision.verdicts
    ]
    print_table(["RULE", "ADD", "WHY NOT", "SAYS"], rows, prose=True)
    readings = list(_reading_rows(facts))
    if readings:
        click.echo()
        if any(row[-1] for row in readings):
            print_table(["READING", "VALUE", "AGE", "GAP"], readings, prose=True)
        else:
            print_table(["READING", "VALUE", "AGE"], [row[:-1] for row in readings])
    click.echo()
    print_fields(_circumstances(facts, decision))


def _reading_rows(facts: Facts) -> Iterator[tuple[str, ...]]:
    for reading in facts.readings:
        yield _reading_row(reading.check, reading.load, facts.now)
        if reading.over is not None:
            yield _reading_row(f"{reading.check}, over", reading.over, facts.now)
    if isinstance(facts.capacity, Capacity) and facts.capacity.counted is not None:
        yield _reading_row("capacity", facts.capacity.counted, facts.now)


def _reading_row(name: str, reading: Reading | Gap, now: datetime) -> tuple[str, ...]:
    if isinstance(reading, Gap):
        return name, NOTHING, NOTHING, f"{reading.reason}: {reading.detail}"
    return name, number(reading.value), NOTHING if reading.at is None else length(now - reading.at), ""


def _circumstances(facts: Facts, decision: Decision) -> Iterator[tuple[str, str]]:
    policy = facts.policy
    yield "policy", f"{policy.name} ({_BUYS[policy.dry_run]}; version {policy.version})"
    yield "at", instant(facts.now)
    if isinstance(facts.capacity, Gap):
        yield "supply", f"not known ({facts.capacity.reason}: {facts.capacity.detail})"
    else:
        yield "supply", _supply(decision, policy.limits.maximum)
        about = facts.capacity.cluster
        quota = "" if about.node_quota is None else f" of {about.node_quota}"
        nodes = f"{about.size}{quota} nodes" if quota else count(about.size, "node")
        yield "cluster", f"{policy.cluster_id}, {about.state}, {about.profile or 'no'} profile, {nodes}"
    for order in facts.overrides:
        workers = "" if order.workers is None else f" {order.workers}"
        ends = f"ends {instant(order.ends_at)}"
        yield "order", f'{order.id}: {order.kind}{workers} by {order.author}, {ends} ("{order.reason}")'
    if decision.recheck_at is not None:
        until = f"{instant(decision.recheck_at)} ({ago(decision.recheck_at, facts.now)})"
        yield "holds until", f"{until}, as long as the readings want the same"


def _supply(decision: Decision, maximum: int) -> str:
    supply = decision.supply
    if supply is None:
        return "not known"
    stages = f"{supply.expected} expected, {supply.joining} joining, {supply.warming} warming"
    parts = [
        f"{supply.serving} serving",
        f"{supply.in_flight} in flight" + (f" ({stages})" if supply.in_flight else ""),
    ]
    for workers, word in (
        (supply.lost, "lost"),
        (supply.written_off, "written off"),
        (supply.lapsing, "about to lapse"),
        (supply.imagined, "of the serving ones imagined"),
    ):
        if workers:
            parts.append(f"{workers} {word}")
    return f"{supply.total}: {', '.join(parts)}; {supply.paid} paid of at most {maximum}"
