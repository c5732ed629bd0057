"""Variants of a policy: what can be put otherwise, and what is said of what cannot."""

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.policy import PerWorker, Policy
from autoscaler.simulation.variants import VariantError, variant
from tests.build import budget, per_worker, policy, schedule, steps

BASE = policy(checks=(per_worker(), steps((100, 1)), schedule()), budgets=(budget(10), budget(50)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param("limits.per_action=10", lambda p: p.limits.per_action == 10, id="a number"),
        pytest.param("cooldown=5m", lambda p: p.cooldown == timedelta(minutes=5), id="a duration"),
        pytest.param("headroom=25%", lambda p: p.headroom.ratio == Fraction(1, 4), id="a percentage"),
        pytest.param("headroom = 2", lambda p: p.headroom.workers == 2, id="blanks around"),
        pytest.param(
            "limits.per_action=10, cooldown=0s",
            lambda p: (p.limits.per_action, p.cooldown) == (10, timedelta(0)),
            id="two changes of one variant",
        ),
        pytest.param(
            "checks.sessions.load_per_worker=500",
            lambda p: p.checks[0].load_per_worker == 500,
            id="a check by its name",
        ),
        pytest.param("limits.budgets.1.workers=7", lambda p: p.limits.budgets[1].workers == 7, id="an item by number"),
        pytest.param("limits.budgets=[]", lambda p: p.limits.budgets == (), id="a list as a whole"),
        pytest.param(
            "limits.budgets=[{workers: 3, per: 1h}, {workers: 9, per: 24h}], warm_up=0s",
            lambda p: [b.workers for b in p.limits.budgets] == [3, 9] and not p.warm_up,
            id="commas in brackets do not end a change",
        ),
        pytest.param(
            "price_per_worker_month=180.50",
            lambda p: p.price_per_worker_month == Fraction(361, 2),
            id="a key the policy did not have",
        ),
        pytest.param("worker.worker_period=3", lambda p: p.worker.worker_period == 3, id="within worker"),
        pytest.param("description='a, b'", lambda p: p.description == "a, b", id="a comma in quotes"),
    ],
)
def test_a_variant_says_otherwise_what_it_names(changes: str, expected: object) -> None:
    made = variant(BASE, changes)
    assert expected(made)  # type: ignore[operator]
    assert made.name == BASE.name
    assert made.version != BASE.version


def test_what_it_does_not_name_stays() -> None:
    assert variant(BASE, f"limits.per_action={BASE.limits.per_action}") == BASE
    assert variant(BASE, f"limits.per_action={BASE.limits.per_action}").version == BASE.version


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param("limits.per_action", "'limits.per_action' changes nothing; write path=value", id="no value"),
        pytest.param("", "'' changes nothing", id="nothing"),
        pytest.param("=5", "'' changes nothing", id="no path"),
        pytest.param("limits.per_action=0", "limits.per_action: 0 is too small; write 1 or more", id="impossible"),
        pytest.param("limits.per_action=many", "limits.per_action: 'many' is not a whole number", id="a word"),
        pytest.param("cooldown=5", "cooldown: 5 has no unit; write 5s, 5m or 5h", id="no unit"),
        pytest.param("cooldwn=5m", "cooldwn: is not a known key; write cooldown", id="a typo"),
        pytest.param("per_action=5", "per_action: is not a known key; move it under limits", id="in the wrong place"),
        pytest.param("checks.session.load_per_worker=5", "no 'session'; write sessions or queue", id="a check"),
        pytest.param("cooldown.minutes=5", "there is nothing called 'minutes' in a value", id="beyond a value"),
        pytest.param("name=other", "name: cannot be changed by a variant", id="the name"),
        pytest.param("limits.maximum=[", "limits.maximum: opens a bracket that is never closed", id="broken YAML"),
        pytest.param("limits.minimum=50, limits.maximum=5", "is below minimum 50", id="what does not fit together"),
    ],
)
def test_a_variant_that_makes_no_policy_is_refused(changes: str, problem: str) -> None:
    with pytest.raises(VariantError) as refusal:
        variant(BASE, changes)
    assert problem in str(refusal.value)
    assert str(refusal.value).startswith("--set: ")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(VariantError) as refusal:
        variant(BASE, "limits.per_action=0, cooldown=5")
    assert len(refusal.value.problems) == 2


def test_the_variant_is_a_policy_like_any_other() -> None:
    made = variant(BASE, "cooldown=1m")
    assert isinstance(made, Policy)
    assert isinstance(made.checks[0], PerWorker)


def test_a_password_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(VariantError) as refusal:
        variant(BASE, "worker.login_password=Hunter-2-Hunter")
    assert "Hunter" not in str(refusal.value)


@given(st.text(alphabet="limtsper_action.checks=0159,[]{}'\": m%&*!-\n", max_size=40))
def test_whatever_is_typed_makes_a_policy_or_is_refused(changes: str) -> None:
    try:
        made = variant(BASE, changes)
    except VariantError as refusal:
        assert all(problem.what and problem.mend for problem in refusal.problems)  # noqa: PT017  # either is right
    else:
        assert made.name == BASE.name
