"""The pages that only look: all policies, one of them, and decisions."""

from collections.abc import Iterator
from difflib import get_close_matches
from io import StringIO
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from autoscaler.budget import room
from autoscaler.decision import Evaluation, differences
from autoscaler.facts import Facts
from autoscaler.model import Capacity, Gap, Reading
from autoscaler.overview import Overview, Standing
from autoscaler.policy import Policy
from autoscaler.policy.files import expanded
from autoscaler.purchase import terms
from autoscaler.web.desk import Desk
from autoscaler.web.page.frame import Before, Frame, Id, go
from autoscaler.web.page.picture import DAY, picture
from autoscaler.web.page.texts import Texts
from autoscaler.web.page.views import LOOKS, BudgetRow, budget_rows, front, progress_of, row_of
from autoscaler.web.page.wording import Wording
from autoscaler.web.problem import Refusal

_FACTS = TypeAdapter(Facts)
_LAST = 12  # decisions and purchases on a policy's page
_PAGE = 50
_OF_A_DAY = 300  # orders and purchases that a chart shows at most


def routes(frame: Frame, desk: Desk) -> APIRouter:
    """The routes of these pages."""
    router, texts, reads = APIRouter(), frame.texts, desk.reads

    @router.get("/")
    def every_policy(request: Request, q: str = "", only: str = "") -> Response:
        everything = desk.overview()
        view = front(everything, texts, Wording(texts, everything.at), q.strip()[:200], only)
        return frame.page(request, "overview.html", here="policies", now=everything.at, view=view)

    @router.get("/policies/{name}")
    def one_policy(request: Request, name: str) -> Response:
        everything = desk.overview()
        standing = everything.standing(name)
        if standing is None:
            raise Refusal(404, _unknown(name, everything, texts))
        page = _policy_page(standing, everything, desk, texts)
        return frame.page(request, "policy.html", here="policies", now=everything.at, **page)

    @router.get("/policies/{name}/why")
    def latest_decision(name: str) -> Response:
        found = reads.decisions(policy=name, limit=1)
        if not found:
            raise Refusal(404, texts("decision.none_of"))
        return go(f"/decisions/{found[0].id}")

    @router.get("/decisions")
    def all_decisions(request: Request, policy: str = "", before: Before = None) -> Response:
        policy = policy.strip()
        stored = reads.decisions(policy=policy or None, before_id=before, limit=_PAGE)
        older = ""
        if len(stored) == _PAGE:
            older = "/decisions?" + urlencode(({"policy": policy} if policy else {}) | {"before": stored[-1].id})
        return frame.page(
            request, "decisions.html", here="decisions", policy=policy, stored=stored, looks=LOOKS, older=older
        )

    @router.get("/decisions/{id}")
    def one_decision(request: Request, id: Id) -> Response:
        evaluation = reads.evaluation(id)
        if evaluation is None:
            raise Refusal(404, texts("decision.unknown", id=id))
        words = Wording(texts, frame.now())
        return frame.page(
            request,
            "decision.html",
            here="decisions",
            id=id,
            evaluation=evaluation,
            looks=LOOKS,
            differs=differences(evaluation),
            readings=tuple(_readings(evaluation.facts, texts, words)),
            numbers=tuple(_numbers(evaluation, words)),
            policy_text=as_yaml(evaluation.facts.policy),
            facts_text=_FACTS.dump_json(evaluation.facts, exclude={"policy"}, indent=2).decode(),
        )

    return router


def as_yaml(policy: Policy) -> str:
    """A policy in the form of its file, every default and shared value in place."""
    yaml = YAML()
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(expanded(policy), text)
    return text.getvalue()


def _unknown(name: str, everything: Overview, texts: Texts) -> str:
    if name in everything.retired:
        return texts("policy.retired", policy=name)
    near = get_close_matches(name[:200], [standing.name for standing in everything.policies], n=3)
    return texts("policy.unknown_near", near=texts("and").join(near)) if near else texts("policy.unknown")


def _policy_page(standing: Standing, everything: Overview, desk: Desk, texts: Texts) -> dict[str, Any]:
    now, policy, name, reads = everything.at, standing.policy, standing.name, desk.reads
    words = Wording(texts, now)
    supply = None if standing.decision is None else standing.decision.supply
    purchases = reads.purchases(policy=name, limit=_OF_A_DAY)
    orders = [order for order in reads.override_history(limit=_OF_A_DAY) if order.names(name)]
    stages = () if supply is None else ("expected", "joining", "warming")
    return {
        "name": name,
        "row": row_of(standing, texts, words),
        "description": None if policy is None else policy.description,
        "labels": [] if policy is None else [f"{key}={value}" for key, value in policy.labels.items()],
        "stages": texts("and").join(
            texts(f"policy.stage.{stage}", n=n) for stage in stages if (n := getattr(supply, stage))
        ),
        "paid": None if supply is None else supply.paid,
        "maximum": None if policy is None else policy.limits.maximum,
        "charts": picture(reads.samples(name, now - DAY), purchases, orders, now, texts, words),
        "view": {"overrides": standing.overrides, "progress": progress_of(everything.progress, texts)},
        "stored": reads.decisions(policy=name, limit=_LAST),
        "looks": LOOKS,
        "purchases": purchases[:_LAST],
        "budgets": () if policy is None else _budgets(policy, everything, desk, texts, words),
        "lapses": standing.lapses,
        "policy_text": None if policy is None else as_yaml(policy),
        "version": None if policy is None else policy.version,
    }


def _budgets(policy: Policy, everything: Overview, desk: Desk, texts: Texts, words: Wording) -> tuple[BudgetRow, ...]:
    bought = desk.reads.histories([policy], everything.at)[policy.name].purchases
    rooms = room(policy.limits.budgets, policy.name, bought, terms(policy), everything.at)
    return budget_rows(rooms, policy.currency, texts, words)


def _readings(facts: Facts, texts: Texts, words: Wording) -> Iterator[dict[str, str]]:
    def row(name: str, reading: Reading | Gap) -> dict[str, str]:
        if isinstance(reading, Gap):
            gap = f"{reading.reason}: {reading.detail}"
            return {"name": name, "value": texts("none"), "age": texts("none"), "gap": gap}
        age = texts("none") if reading.at is None else words.span(facts.now - reading.at)
        return {"name": name, "value": words.number(reading.value), "age": age, "gap": ""}

    for reading in facts.readings:
        yield row(reading.check, reading.load)
        if reading.over is not None:
            yield row(texts("decision.over", check=reading.check), reading.over)
    if isinstance(facts.capacity, Capacity) and facts.capacity.counted is not None:
        yield row(texts("decision.capacity"), facts.capacity.counted)


def _numbers(evaluation: Evaluation, words: Wording) -> Iterator[tuple[str, str]]:
    """The numbers a decision came to, each with the name of its text."""
    facts, decision = evaluation.facts, evaluation.decision
    yield "demand", words.number(decision.demand)
    yield "wanted", words.number(decision.wanted)
    yield "add", str(decision.add)
    if isinstance(facts.capacity, Gap):
        yield "supply", f"{facts.capacity.reason}: {facts.capacity.detail}"
    elif decision.supply is not None:
        supply = decision.supply
        yield "supply", str(supply.total)
        for name in ("serving", "expected", "joining", "warming", "lost", "written_off", "lapsing", "imagined", "paid"):
            if (number := getattr(supply, name)) or name in ("serving", "paid"):
                yield name, str(number)
        about = facts.capacity.cluster
        yield "cluster", f"{decision.cluster_id}, {about.state}, {about.profile}"
    yield "maximum", str(facts.policy.limits.maximum)
    if decision.order_id is not None:
        yield "order", str(decision.order_id)
    if decision.recheck_at is not None:
        yield "recheck", words.instant(decision.recheck_at)
    yield "endpoint", facts.endpoint
