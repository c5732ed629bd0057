"""Overrides as people ask for them: judged whole, and every problem told at once.

``judge`` makes of what was asked the order that is recorded. A name stays a name. A glob of a freeze, floor or cap
stays a glob, so that it holds for policies that come later too. A label (``team=live``) becomes the names of the
policies that carry it now, and so do the globs of a buy: what is bought is what was shown.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from autoscaler.duration import format_duration
from autoscaler.model import Override, OverrideKind

LONGEST = timedelta(days=7)
"""An order that nobody remembers is a fault of its own: a week outlasts any event that one is on call for."""

_LONGEST_AUTHOR = 100  # characters
_LONGEST_REASON = 500
_LONGEST_SELECTOR = 200  # characters; a policy's name has at most 100
_MOST_SELECTORS = 1000
_MOST_WORKERS = 100_000  # beyond any cluster, and within what every database takes for a number
_LEAST_WORKERS = {OverrideKind.FLOOR: 1, OverrideKind.CAP: 0, OverrideKind.BUY: 1}
_GLOB = frozenset("*?[")

Labels = Mapping[str, Mapping[str, str]]  # the labels of each policy, by its name


@dataclass(frozen=True, slots=True)
class Asked:
    """An order as a person asks for it."""

    kind: OverrideKind
    policies: tuple[str, ...]  # names, globs, labels as ``key=value``
    workers: int | None
    author: str
    reason: str
    lasts: timedelta | None = None  # either this from now on
    until: datetime | None = None  # or up to this instant


@dataclass(frozen=True, slots=True)
class OrderProblem:
    """What is wrong with one part of an order."""

    field: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.field}: {self.what}; {self.mend}"


class OrderRefused(ValueError):
    """What was asked cannot be ordered; nothing was changed. The text is one line for each problem."""

    def __init__(self, problems: Iterable[OrderProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class KeyReused(ValueError):
    """The key of a request was used by the same author for another order within a day; nothing was changed."""

    def __init__(self, override_id: int) -> None:
        super().__init__(
            f"the key was used before, for the other order {override_id}; give each order a key of its own"
        )
        self.override_id = override_id


@dataclass(frozen=True, slots=True)
class OrderKey:
    """By which a repeated request is known for one."""

    key: str  # the client's own
    digest: str  # of what was asked


def key_of(asked: Asked, key: str) -> OrderKey:
    """The key of a request for what was asked: of the words as they came, since an end counted from now moves on."""
    words = {
        "kind": asked.kind.value,
        "policies": asked.policies,
        "workers": asked.workers,
        "reason": asked.reason,
        "lasts": None if asked.lasts is None else asked.lasts.total_seconds(),
        "until": None if asked.until is None else asked.until.timestamp(),
    }
    return OrderKey(key, hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest())


def judge(asked: Asked, labels: Labels, now: datetime, longest: timedelta = LONGEST) -> Override:
    """The order as it is to be recorded, without its id. Raises OrderRefused.

    ``labels`` holds every policy there is; ``longest`` is how long an order may hold.
    """
    ends_at, end_problems = _end(asked, now, longest)
    names, name_problems = _selected(asked, labels)
    problems = [
        *name_problems,
        *_workers(asked),
        *end_problems,
        *word_problems(asked.author, asked.reason),
    ]
    if problems or ends_at is None:
        raise OrderRefused(problems)
    return Override(0, asked.kind, names, asked.workers, asked.author.strip(), in_one_line(asked.reason), now, ends_at)


def in_one_line(text: str) -> str:
    """A reason as it is kept: without blanks around it and line ends in it."""
    return " ".join(text.split())


def word_problems(author: str, reason: str) -> Iterator[OrderProblem]:
    """What is wrong with who says so and why."""
    for field, text, longest, lack in (
        ("author", author.strip(), _LONGEST_AUTHOR, ("is missing", "say who gives it")),
        ("reason", in_one_line(reason), _LONGEST_REASON, ("is missing", "say why; whoever reads it was not there")),
    ):
        if not text:
            yield OrderProblem(field, *lack)
        elif not text.isprintable():
            yield OrderProblem(field, "holds characters that cannot be shown", "leave them out")
        elif len(text) > longest:
            yield OrderProblem(field, f"has {len(text)} characters", f"use up to {longest}")


def matched(override: Override, policies: Iterable[str]) -> tuple[str, ...]:
    """Those of the policies that an order is for, by name."""
    return tuple(sorted(name for name in policies if override.names(name)))


def _end(asked: Asked, now: datetime, longest: timedelta) -> tuple[datetime | None, list[OrderProblem]]:
    at_most = f"an order holds for at most {format_duration(longest)}"

    def problem(what: str, mend: str) -> tuple[None, list[OrderProblem]]:
        return None, [OrderProblem("end", what, mend)]

    if asked.lasts is not None and asked.until is not None:
        return problem("is given twice", "say either how long or until when")
    if asked.lasts is not None:
        if asked.lasts <= timedelta(0):
            return problem("is not in the future", "say for how long, such as 2h")
        if asked.lasts > longest:
            return problem(f"is {format_duration(asked.lasts)} away", at_most)
        return now + asked.lasts, []
    if asked.until is None:
        return problem("is missing", f"say for how long or until when; {at_most}")
    if asked.until.tzinfo is None:
        return problem("has no time zone", "write it as 2026-06-01T08:00:00Z or with an offset, such as +08:00")
    if asked.until <= now:
        return problem("is in the past", f"it is {now:%Y-%m-%d %H:%M:%SZ} now")
    if asked.until - now > longest:
        return problem(f"is {format_duration(asked.until - now)} away", at_most)
    return asked.until.astimezone(now.tzinfo), []


def _workers(asked: Asked) -> Iterator[OrderProblem]:
    least = _LEAST_WORKERS.get(asked.kind)
    if least is None:
        if asked.workers is not None:
            yield OrderProblem("workers", f"a {asked.kind} has no number", "leave it out")
    elif asked.workers is None:
        yield OrderProblem("workers", "is missing", "say how many")
    elif not least <= asked.workers <= _MOST_WORKERS:
        yield OrderProblem("workers", f"is {asked.workers}", f"say {least} to {_MOST_WORKERS}")


def _selected(asked: Asked, labels: Labels) -> tuple[tuple[str, ...], list[OrderProblem]]:
    """The names and globs that are recorded."""
    if not asked.policies:
        return (), [
            OrderProblem("policies", "is missing", "name a policy, a glob, a label such as team=live, or * for all")
        ]
    if len(asked.policies) > _MOST_SELECTORS:
        return (), [OrderProblem("policies", f"are {len(asked.policies)}", f"name up to {_MOST_SELECTORS}, or a glob")]
    found: dict[str, None] = {}
    problems = []
    for selector in asked.policies:
        names = _names(selector, labels)
        keeps = _is_glob(selector) and asked.kind is not OverrideKind.BUY
        if names or (selector == "*" and keeps):
            found.update(dict.fromkeys([selector] if keeps else names))
        else:
            problems.append(_unmatched(selector, labels))
    return tuple(found), problems


def _names(selector: str, labels: Labels) -> list[str]:
    key, equals, value = selector.partition("=")
    if equals:
        return sorted(name for name, carried in labels.items() if carried.get(key) == value)
    if _is_glob(selector) and len(selector) <= _LONGEST_SELECTOR:
        return sorted(name for name in labels if fnmatchcase(name, selector))
    return [selector] if selector in labels else []


def _is_glob(selector: str) -> bool:
    return "=" not in selector and not _GLOB.isdisjoint(selector)


def _unmatched(selector: str, labels: Labels) -> OrderProblem:
    names = "see `autoscaler status` for their names"
    if not selector:
        return OrderProblem("policies", "holds an empty name", names)
    if not selector.isprintable():
        return OrderProblem("policies", "holds characters that cannot be shown", names)
    if len(selector) > _LONGEST_SELECTOR:
        return OrderProblem("policies", f"holds {len(selector)} characters in one piece", names)
    if "=" in selector:
        return OrderProblem("policies", f"no policy has the label {selector}", "see `labels` in the policy files")
    if _is_glob(selector):
        return OrderProblem("policies", f"no policy matches {selector}", names)
    near = difflib.get_close_matches(selector, labels, n=3)
    mend = f"did you mean {', '.join(near)}?" if near else names
    return OrderProblem("policies", f"there is no policy {selector}", mend)
