"""The API against its own description: whatever is sent, no mistake of ours, and no order without a token."""

import hypothesis
from prometheus_client import CollectorRegistry
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from autoscaler.web import create_app
from tests.build import at, purchase
from tests.counter import ANA, EDGE, Counter
from tests.test_web import FakeVitals

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]

counter = Counter()
counter.keep(purchase(1, "unknown", of=EDGE, sent_at=at(hours=-3)))
schema = from_asgi("/api/v1/openapi.json", create_app(FakeVitals(), CollectorRegistry(), counter.desk()))
bounded = hypothesis.settings(max_examples=8, deadline=None, derandomize=True, database=None)


@schema.parametrize()
@bounded
def test_with_a_token_every_answer_is_as_described(case: Case) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {ANA}"}, checks=CHECKS)


@schema.include(method="POST").parametrize()
@bounded
def test_without_a_token_nothing_is_ordered(case: Case) -> None:
    before = counter.memory.override_history(limit=10_000), counter.memory.purchases(limit=None)
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {ANA}x"}):
        response = case.call(headers=headers)
        assert response.status_code in (401, 404, 405), response.text
    assert (counter.memory.override_history(limit=10_000), counter.memory.purchases(limit=None)) == before
