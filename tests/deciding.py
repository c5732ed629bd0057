"""Tables of decisions: a sentence, the facts, and what comes of them as ``"outcome reason add"``."""

from collections.abc import Mapping
from typing import Any

import pytest

from autoscaler.decision import decide
from autoscaler.facts import Facts
from autoscaler.policy import Policy
from tests.build import capacity, facts, history, policy, workers

Row = tuple[Facts, str] | tuple[Facts, str, str]


def rows(table: Mapping[str, Row]) -> Any:
    """Parametrize a test over a table of decisions."""
    params = [pytest.param(*row, *([None] if len(row) == 2 else []), id=sentence) for sentence, row in table.items()]
    return pytest.mark.parametrize(("given", "expected", "sentence"), params)


def check(given: Facts, expected: str, sentence: str | None) -> None:
    """Assert what is decided, and the sentence where the row has one."""
    decision = decide(given)
    assert f"{decision.outcome} {decision.reason} {decision.add}" == expected, decision.sentence
    if sentence is not None:
        assert decision.sentence == sentence


def at_load(load: int, serving: int, *purchases: Any, of: Policy | None = None, **more: Any) -> Facts:
    """Facts with a load of ``sessions``, so many serving workers, and the policy's purchases."""
    more.setdefault("capacity", capacity(workers(serving)))
    more.setdefault("history", history(*purchases))
    return facts(of or policy(), load, **more)


def lacking(add: int, *purchases: Any, of: Policy | None = None, **more: Any) -> Facts:
    """Facts of a policy that has 12 workers and lacks ``add`` more."""
    return at_load((12 + add) * 400, 12, *purchases, of=of, **more)
