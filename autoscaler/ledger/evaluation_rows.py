"""Evaluations as rows: the latest of each policy, one-minute samples, and the decisions that were news.

An evaluation that says what the one before it said replaces rows and appends none but its minute's sample. A decision
keeps its facts whole but for the policy, which is kept once a version; they are compressed, being nine tenths of the
ledger and read only when somebody asks why.
"""

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta

from pydantic import TypeAdapter
from sqlalchemy import Connection, delete, insert, select

from autoscaler.decision import Decision, Evaluation, next_runs
from autoscaler.facts import Facts
from autoscaler.ledger.agreement import SAMPLES_KEPT, is_news, is_stale, minute
from autoscaler.ledger.database import Database
from autoscaler.ledger.records import Sample, StoredDecision
from autoscaler.ledger.tables import decisions, is_named, latest, policy_versions, purchases, samples
from autoscaler.model import CheckReading, Run
from autoscaler.policy import Policy
from autoscaler.supply import Supply

_FACTS = TypeAdapter(Facts)
_MINUTE = timedelta(minutes=1)
_SUPPLY = tuple(field.name for field in fields(Supply))


def record(
    database: Database, connection: Connection, evaluations: Sequence[Evaluation], purchase_id: int | None = None
) -> tuple[bool, ...]:
    """Write evaluations in their order, and say of each whether its decision was appended.

    With a ``purchase_id``, the decision that made it is appended in any case. Otherwise an evaluation older than the
    latest one of its policy is left out, unless a clock that was ahead made that one.
    """
    names = {evaluation.decision.policy for evaluation in evaluations}
    before = current(connection, names)
    latest_rows: dict[str, dict[str, object]] = {}
    sample_rows: dict[tuple[str, datetime], dict[str, object]] = {}
    decision_rows: list[dict[str, object]] = []
    versions: dict[str, Policy] = {}
    appended = []
    for evaluation in evaluations:
        facts, decision = evaluation.facts, evaluation.decision
        previous = before.get(decision.policy)
        stale = is_stale(previous.at if previous else None, decision.at, database.clock())
        news = purchase_id is not None or (not stale and is_news(previous, decision))
        appended.append(news)
        if news:
            versions[facts.policy.version] = facts.policy
            decision_rows.append(_decision_row(evaluation, purchase_id))
        if stale:
            continue
        before[decision.policy] = decision
        runs = next_runs(facts.policy, facts.history.runs, decision.demand, facts.now)
        latest_rows[decision.policy] = {
            "policy": decision.policy,
            "decision": decision,
            "runs": runs,
            "readings": facts.readings,
        }
        sample_rows[decision.policy, minute(decision.at)] = _sample_row(decision)
    _save_versions(connection, versions)
    if decision_rows:
        connection.execute(insert(decisions), decision_rows)
    if latest_rows:
        connection.execute(database.upsert(latest), list(latest_rows.values()))
        connection.execute(database.upsert(samples), list(sample_rows.values()))
    return tuple(appended)


def _save_versions(connection: Connection, versions: dict[str, Policy]) -> None:
    known = select(policy_versions.c.version).where(policy_versions.c.version.in_(sorted(versions)))
    missing = versions.keys() - set(connection.execute(known).scalars()) if versions else ()
    if missing:
        rows = [{"version": version, "body": versions[version].model_dump_json()} for version in missing]
        connection.execute(insert(policy_versions), rows)


def _decision_row(evaluation: Evaluation, purchase_id: int | None) -> dict[str, object]:
    decision = evaluation.decision
    return {
        "policy": decision.policy,
        "policy_version": evaluation.facts.policy.version,
        "at": decision.at,
        "purchase_id": purchase_id,
        "decision": decision,
        "facts": zlib.compress(_FACTS.dump_json(evaluation.facts, exclude={"policy"})),
    }


def _sample_row(decision: Decision) -> dict[str, object]:
    numbers: dict[str, object] = dict.fromkeys(_SUPPLY) if decision.supply is None else asdict(decision.supply)
    return {
        "at": minute(decision.at),
        "policy": decision.policy,
        "demand": decision.demand,
        "wanted": decision.wanted,
        **numbers,
    }


def current(connection: Connection, policies: Collection[str] | None = None) -> dict[str, Decision]:
    """The latest decision of each policy, or of those named."""
    query = select(latest.c.policy, latest.c.decision)
    if policies is not None:
        query = query.where(latest.c.policy.in_(sorted(policies)))
    return {row.policy: row.decision for row in connection.execute(query)}


def readings(connection: Connection) -> dict[str, tuple[CheckReading, ...]]:
    """What the checks of each policy read at its latest evaluation."""
    rows = connection.execute(select(latest.c.policy, latest.c.readings).where(latest.c.readings.is_not(None)))
    return {row.policy: row.readings for row in rows}


def runs(connection: Connection, policies: Collection[str]) -> dict[tuple[str, str], tuple[Run, ...]]:
    """The runs of the policies named, by policy and the cluster it was in at its latest evaluation."""
    query = select(latest.c.decision, latest.c.runs).where(latest.c.policy.in_(sorted(policies)))
    return {(decision.policy, decision.cluster_id): runs for decision, runs in connection.execute(query)}


def stored(connection: Connection, policy: str | None, before_id: int | None, limit: int) -> tuple[StoredDecision, ...]:
    """One page of the decisions that were news, newest first."""
    query = select(decisions.c.id, decisions.c.decision).order_by(decisions.c.id.desc()).limit(limit)
    if policy is not None:
        query = query.where(is_named(decisions.c.policy, policy))
    if before_id is not None:
        query = query.where(decisions.c.id < before_id)
    return tuple(StoredDecision(key, decision) for key, decision in connection.execute(query))


def evaluation(connection: Connection, decision_id: int) -> Evaluation | None:
    """A stored decision with its facts, and with the policy as it was then."""
    row = connection.execute(
        select(decisions.c.decision, decisions.c.facts, policy_versions.c.body)
        .join(policy_versions, policy_versions.c.version == decisions.c.policy_version)
        .where(decisions.c.id == decision_id)
    ).one_or_none()
    if row is None:
        return None
    decision, facts, body = row
    policy = Policy.model_validate_json(body)
    known = json.loads(zlib.decompress(facts))
    gone = known["history"]["gone"]
    if not isinstance(gone, list):  # so it was kept once: of all clouds and credentials the newest alone
        known["history"]["gone"] = [] if gone is None else [gone]
    return Evaluation(_FACTS.validate_python(known | {"policy": policy}), decision)


def of_purchase(connection: Connection, purchase_id: int) -> int | None:
    """The number of the decision that a purchase was made by."""
    policy = select(purchases.c.policy).where(purchases.c.id == purchase_id).scalar_subquery()  # it has an index
    query = select(decisions.c.id).where(decisions.c.policy == policy, decisions.c.purchase_id == purchase_id)
    return connection.execute(query).scalar_one_or_none()


def sampled(connection: Connection, policy: str, since: datetime) -> tuple[Sample, ...]:
    """The samples of a policy from ``since`` on, oldest first."""
    newest = current(connection, {policy}).get(policy)
    if newest is None:
        return ()
    last = minute(newest.at)
    first = max(minute(since), last - SAMPLES_KEPT)
    minutes = [first + n * _MINUTE for n in range((last - first) // _MINUTE + 1)]
    columns = [samples.c[name] for name in _SUPPLY]
    rows = connection.execute(
        select(samples.c.at, samples.c.demand, samples.c.wanted, *columns)
        .where(samples.c.policy == policy, samples.c.at.in_(minutes))
        .order_by(samples.c.at)
    )
    return tuple(
        Sample(at, demand, wanted, None if None in supply else Supply(*supply))
        for at, demand, wanted, *supply in rows
        if at >= since
    )


def prune(connection: Connection, now: datetime, keep: timedelta) -> None:
    """Drop samples past their time, and decisions older than ``keep`` that nothing was bought by."""
    connection.execute(delete(samples).where(samples.c.at < now - SAMPLES_KEPT))
    connection.execute(delete(decisions).where(decisions.c.at < now - keep, decisions.c.purchase_id.is_(None)))
