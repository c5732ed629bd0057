"""What ``check --connect`` asks the outside, once and read only: each query, each cluster, each password.

What answers and is of no use is the policy's fault; what does not answer is the outside's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import partial

import click

from autoscaler.cli.failure import Exit
from autoscaler.cli.output import NOTHING, count, length, print_table
from autoscaler.controller import questions
from autoscaler.model import Gap, GapReason, Question, Reading
from autoscaler.policy import Policy, PrometheusServer
from autoscaler.purchasing import PasswordUnavailable
from autoscaler.strategy import number
from autoscaler.wiring import Outside, referred_password

_OUTSIDE = frozenset(
    {
        GapReason.PARTIAL_ANSWER,
        GapReason.SERVER_ERROR,
        GapReason.TIMEOUT,
        GapReason.NOT_JSON,
        GapReason.UNREACHABLE,
        GapReason.UNAUTHORIZED,
        GapReason.INCONSISTENT,
        GapReason.CLOCK,
    }
)
"""Gaps that say something of whom was asked; the others say something of the question."""


class Kind(StrEnum):
    """What was asked for."""

    QUERY = "query"
    CLUSTER = "cluster"
    PASSWORD = "password"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one question to the outside came to."""

    kind: Kind
    asked: str  # the query, the cluster's id, where the password is
    policies: tuple[str, ...]  # that need the answer
    says: str
    status: Exit = Exit.DONE  # NO: the policy's fault, OUTSIDE: an outside system's
    prometheus: str | None = None  # the server that was asked a query
    series: int | None = None  # that the query gave; None: it did not come to that, or they are several
    value: Fraction | None = None
    age: timedelta | None = None  # None: not known, or not asked for

    @property
    def ok(self) -> bool:
        """Whether it is as the policies need it."""
        return self.status is Exit.DONE


def ask_queries(
    outside: Outside, policies: Sequence[Policy], servers: Mapping[str, PrometheusServer], now: datetime
) -> Iterator[Finding]:
    """Each query of each Prometheus, asked once however many policies have it."""
    readers = outside.servers.named(servers)
    asked: dict[str, dict[Question, list[str]]] = {}
    for policy in policies:
        for question in questions(policy):
            asked.setdefault(policy.prometheus, {}).setdefault(question, []).append(policy.name)
    for server, users in asked.items():
        answers = readers[server].read(list(users), now)
        for (question, names), answer in zip(users.items(), answers, strict=True):
            yield _of_answer(question, server, tuple(dict.fromkeys(names)), answer, now)


def _of_answer(
    question: Question, server: str, names: tuple[str, ...], answer: Reading | Gap, now: datetime
) -> Finding:
    asked = partial(Finding, Kind.QUERY, question.query, names, prometheus=server)
    if isinstance(answer, Gap):
        return asked(
            says=f"{answer.reason}: {answer.detail}",
            status=Exit.OUTSIDE if answer.reason in _OUTSIDE else Exit.NO,
            series=0 if answer.reason is GapReason.NO_DATA else None,
        )
    age = None if answer.at is None else now - answer.at
    return asked(says="gives one number", series=1, value=answer.value, age=age)


def ask_clusters(outside: Outside, policies: Sequence[Policy]) -> Iterator[Finding]:
    """Each cluster, looked at once: there, an edge cluster, its state, the room in its quota, its workers."""
    by_cluster: dict[str, list[Policy]] = {}
    for policy in policies:
        by_cluster.setdefault(policy.cluster_id, []).append(policy)
    for cluster_id, users in by_cluster.items():
        names = tuple(policy.name for policy in users)
        look = outside.cloud.inventory(cluster_id)
        if isinstance(look, Gap):
            # What the cloud calls a wrong question is a cluster it does not know.
            status = Exit.NO if look.reason is GapReason.BAD_QUERY else Exit.OUTSIDE
            yield Finding(Kind.CLUSTER, cluster_id, names, f"{look.reason}: {look.detail}", status)
            continue
        about = look.cluster
        workers = sum(node.role == "Worker" for node in look.nodes)
        says = [about.state, f"{count(about.size, 'node')}, {count(workers, 'worker')}"]
        full = about.node_quota is not None and about.size >= about.node_quota
        if about.node_quota is not None:
            says.append(f"node quota {about.node_quota}" + (", which is used up" if full else ""))
        is_edge = about.profile.lower() == "edge"
        says.insert(0, "an edge cluster" if is_edge else f"its profile is {about.profile or 'missing'}, not Edge")
        status = Exit.DONE if is_edge and not full else Exit.NO
        yield Finding(Kind.CLUSTER, cluster_id, names, ", ".join(says), status)


def try_passwords(policies: Sequence[Policy], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Each password that policies refer to, resolved and held against the cloud's rule; never shown."""
    users: dict[tuple[str | None, str | None], list[Policy]] = {}
    for policy in policies:
        reference = policy.worker.login_password
        users.setdefault((reference.env, reference.file), []).append(policy)
    for (env, file), sharing in users.items():
        names = tuple(policy.name for policy in sharing)
        asked = f"environment variable {env}" if file is None else f"file {file}"
        try:
            referred_password(sharing[0].worker.login_password, environ)  # of dry runs too: they are to go live
        except PasswordUnavailable as error:
            yield Finding(Kind.PASSWORD, asked, names, str(error), Exit.NO)
        else:
            yield Finding(Kind.PASSWORD, asked, names, "is there, and of the form that the cloud takes")


def print_findings(findings: Sequence[Finding]) -> None:
    """A table of queries, one of clusters and one of passwords."""
    for kind in Kind:
        found = [finding for finding in findings if finding.kind is kind]
        if not found:
            continue
        click.echo()
        if kind is Kind.QUERY:
            titles = ["", "PROMETHEUS", "SERIES", "VALUE", "AGE", "QUERY"]
            print_table(titles, [(_mark(finding), *_answer(finding)) for finding in found], prose=True)
        else:
            rows = [(_mark(finding), finding.asked, finding.says + _needed(finding)) for finding in found]
            print_table(["", kind.upper(), "FINDING"], rows, prose=True)


def _answer(finding: Finding) -> tuple[str, ...]:
    return (
        finding.prometheus or NOTHING,
        NOTHING if finding.series is None else str(finding.series),
        NOTHING if finding.value is None else number(finding.value),
        NOTHING if finding.age is None else length(finding.age),
        finding.asked if finding.ok else f"{finding.asked}  {finding.says}{_needed(finding)}",
    )


def _mark(finding: Finding) -> str:
    return "ok" if finding.ok else "failed"


def _needed(finding: Finding) -> str:
    return "" if finding.ok else f" (for {', '.join(finding.policies)})"
