"""What may be ordered: every problem at once, and what a name, a glob and a label come to."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from autoscaler.model import Override, OverrideKind
from autoscaler.override import Asked, OrderRefused, judge, key_of
from tests.build import NOW, at

LABELS = {"edge-a": {"team": "live"}, "edge-b": {"team": "live", "tier": "1"}, "transcode": {}}
HOUR = timedelta(hours=1)


def asked(kind: str = "freeze", **fields: Any) -> Asked:
    """A freeze of everything for an hour, or another kind."""
    workers = None if kind == "freeze" else 5
    plain = {"policies": ("*",), "workers": workers, "author": "ana", "reason": "derby", "lasts": HOUR}
    return Asked(OverrideKind(kind), **(plain | fields))


def test_what_is_asked_becomes_the_order_that_is_recorded() -> None:
    order = judge(asked("floor", author=" ana ", reason="  derby \n tonight"), LABELS, NOW)
    assert order == Override(0, OverrideKind.FLOOR, ("*",), 5, "ana", "derby tonight", NOW, NOW + HOUR)


@pytest.mark.parametrize(
    ("kind", "selectors", "recorded"),
    [
        pytest.param("freeze", ["edge-a"], ("edge-a",), id="a name stays a name"),
        pytest.param("freeze", ["edge-*"], ("edge-*",), id="a glob of a freeze holds for later policies too"),
        pytest.param("cap", ["edge-?", "transcode"], ("edge-?", "transcode"), id="a glob and a name"),
        pytest.param("freeze", ["team=live"], ("edge-a", "edge-b"), id="a label is the policies that carry it now"),
        pytest.param("buy", ["edge-*"], ("edge-a", "edge-b"), id="a buy is for the policies that were shown"),
        pytest.param("buy", ["*"], ("edge-a", "edge-b", "transcode"), id="a buy for all is for all there are"),
        pytest.param("floor", ["edge-a", "edge-a", "team=live"], ("edge-a", "edge-b"), id="each once"),
    ],
)
def test_selectors(kind: str, selectors: list[str], recorded: tuple[str, ...]) -> None:
    assert judge(asked(kind, policies=tuple(selectors)), LABELS, NOW).policies == recorded


def test_everything_can_be_frozen_before_any_policy_is_known() -> None:
    assert judge(asked(), {}, NOW).policies == ("*",)


@pytest.mark.parametrize(
    ("order", "problems"),
    [
        pytest.param(asked(policies=()), ["policies: is missing"], id="no policy"),
        pytest.param(
            asked(policies=("egde-a",)), ["policies: there is no policy egde-a; did you mean edge-a"], id="slip"
        ),
        pytest.param(asked(policies=("zz*",)), ["policies: no policy matches zz*"], id="a glob that matches nothing"),
        pytest.param(asked(policies=("team=x",)), ["policies: no policy has the label team=x"], id="nobody's label"),
        pytest.param(asked("buy", policies=("*x",)), ["policies: no policy matches *x"], id="nothing to buy for"),
        pytest.param(asked(policies=("",)), ["policies: holds an empty name"], id="an empty name"),
        pytest.param(asked(policies=("a" * 10_000,)), ["policies: holds 10000 characters in one piece"], id="long"),
        pytest.param(
            asked(policies=("\ud800",)), ["policies: holds characters that cannot be shown"], id="half a character"
        ),
        pytest.param(asked(policies=("x",) * 1001), ["policies: are 1001"], id="too many"),
        pytest.param(asked("buy", policies=("edge-a",), workers=0), ["workers: is 0; say 1 to 100000"], id="buy 0"),
        pytest.param(asked("floor", workers=-1), ["workers: is -1; say 1"], id="a negative floor"),
        pytest.param(asked("cap", workers=-1), ["workers: is -1; say 0"], id="a negative cap"),
        pytest.param(asked("cap", workers=10**30), ["workers: is 1"], id="more than there are"),
        pytest.param(asked("cap", workers=None), ["workers: is missing"], id="no number"),
        pytest.param(asked(workers=3), ["workers: a freeze has no number"], id="a number too many"),
        pytest.param(asked(lasts=None), ["end: is missing; say for how long or until when"], id="no end"),
        pytest.param(asked(until=NOW + HOUR), ["end: is given twice"], id="two ends"),
        pytest.param(asked(lasts=timedelta(0)), ["end: is not in the future"], id="an end at once"),
        pytest.param(asked(lasts=timedelta(days=8)), ["end: is 8d away; an order holds for at most 1w"], id="too long"),
        pytest.param(
            asked(lasts=None, until=at(days=8)), ["end: is 8d away; an order holds for at most 1w"], id="too late"
        ),
        pytest.param(asked(lasts=None, until=at(hours=-1)), ["end: is in the past; it is 2026-06-01 12:00"], id="past"),
        pytest.param(asked(lasts=None, until=datetime(2026, 6, 1, 14)), ["end: has no time zone"], id="no time zone"),
        pytest.param(asked(author=" "), ["author: is missing"], id="nobody"),
        pytest.param(asked(author="x" * 101), ["author: has 101 characters"], id="a long name of somebody"),
        pytest.param(asked(reason=" \n "), ["reason: is missing; say why"], id="no reason"),
        pytest.param(asked(reason="x" * 501), ["reason: has 501 characters"], id="a long reason"),
        pytest.param(asked(reason="a\x1b[2Jb"), ["reason: holds characters that cannot be shown"], id="a terminal's"),
        pytest.param(
            asked("cap", policies=(), workers=-1, lasts=None, author="", reason=""),
            ["policies:", "workers:", "end:", "author:", "reason:"],
            id="every problem at once",
        ),
    ],
)
def test_what_cannot_be_ordered(order: Asked, problems: list[str]) -> None:
    with pytest.raises(OrderRefused) as refused:
        judge(order, LABELS, NOW)
    told = [str(problem) for problem in refused.value.problems]
    assert len(told) == len(problems)
    assert [text for text, start in zip(told, problems, strict=True) if not text.startswith(start)] == []


def test_a_cap_of_nothing_is_an_order() -> None:
    assert judge(asked("cap", workers=0), LABELS, NOW).workers == 0


def test_a_longer_order_where_the_setting_allows_it() -> None:
    assert judge(asked(lasts=timedelta(days=30)), LABELS, NOW, timedelta(days=30)).ends_at == at(days=30)


def test_a_key_knows_what_was_asked_and_not_when() -> None:
    first = key_of(asked(), "k")
    assert key_of(replace(asked(), author="bo"), "k") == first  # the author is kept beside it
    others = [
        replace(asked(), reason="other"),
        replace(asked(), policies=("edge-a",)),
        replace(asked(), lasts=2 * HOUR),
        replace(asked(), lasts=None, until=NOW + HOUR),
        asked("cap", workers=5),
    ]
    assert len({key_of(other, "k").digest for other in others} | {first.digest}) == len(others) + 1
