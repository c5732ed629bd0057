"""Variants of a policy: what it says, with a few values put otherwise, judged as its file would be.

``limits.per_action=10, cooldown=5m`` is one variant. A path leads through maps by their keys and through lists by the
names of their items, or by number: ``checks.sessions.load_per_worker``, ``limits.budgets.0.workers``. A value is
written as in a policy file.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from autoscaler.policy import Policy
from autoscaler.policy.document import Node, Place, Problem, read_document
from autoscaler.policy.files import expanded
from autoscaler.policy.secret import SECRET_KEYS
from autoscaler.policy.words import schema_problems

_OPEN: Final = {"[": "]", "{": "}", "(": ")"}
_FIXED: Final = frozenset({"name", "each"})


class VariantError(Exception):
    """Changes that make no policy, with every problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def variant(policy: Policy, changes: str) -> Policy:
    """``policy`` with ``changes`` in place. Raises VariantError."""
    where = "--set"  # without what stands there: it may be a password in the wrong place
    content = json.dumps({key: value for key, value in expanded(policy).items() if key != "name"}, ensure_ascii=False)
    tree, problems = read_document(where, content.encode())
    if tree is None:
        raise VariantError(problems)
    found: list[Problem] = []
    for part in _parts(changes):
        path, equals, text = part.partition("=")
        if not equals or not path.strip():
            mend = "write path=value, like limits.per_action=10"
            found.append(_problem(where, "", f"{path.strip()!r} changes nothing", mend))
            continue
        value, slips = read_document(where, text.strip().encode() or b"''")
        found += [_problem(where, path.strip(), slip.what, slip.mend) for slip in slips]
        if value is not None:
            keys = path.strip().split(".")
            if not SECRET_KEYS.isdisjoint(keys):
                value = replace(value, secret=True)
            tree = _put(tree, keys, value, Place(where, 0, 0, path.strip()), found)
    if not found:
        try:
            return Policy.model_validate({"name": policy.name, **tree.plain()})
        except ValidationError as error:
            found += schema_problems(Policy, tree, error)
    raise VariantError(list(dict.fromkeys(replace(problem, file=where, line=None, column=None) for problem in found)))


def _parts(changes: str) -> Iterator[str]:
    """The changes, apart at the commas that are in no bracket and in no quotes."""
    part, closing, quote = "", [], ""
    for letter in changes:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _OPEN:
            closing.append(_OPEN[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter == "," and not closing:
            yield part
            part = ""
            continue
        part += letter
    yield part


def _put(node: Node, path: Sequence[str], value: Node, place: Place, problems: list[Problem]) -> Node:
    """``node`` with ``value`` at ``path`` below it."""
    if not path:
        return Node(place, value.value, value.text, value.secret)
    key, rest = path[0], path[1:]
    if isinstance(node.value, list):
        number = _item(node.value, key)
        if number is None:
            names = [part.items["name"].text for part in node.value if "name" in part.items]
            known = names or [str(n) for n in range(len(node.value))]
            mend = f"write {' or '.join(known)}" if known else "there are none to change"
            problems.append(_problem(place.file, place.field, f"there is no {key!r}", mend))
            return node
        items = list(node.value)
        items[number] = _put(items[number], rest, value, place, problems)
        return replace(node, value=items)
    if not isinstance(node.value, dict):
        mend = "end the path where the value stands"
        problems.append(_problem(place.file, place.field, f"there is nothing called {key!r} in a value", mend))
        return node
    if key in _FIXED and node.place.field == "":
        problems.append(_problem(place.file, place.field, "cannot be changed by a variant", "change another key"))
        return node
    below = node.items.get(key, Node(place, {}))
    return replace(node, value={**node.value, key: _put(below, rest, value, place, problems)})


def _item(items: Sequence[Node], key: str) -> int | None:
    for number, item in enumerate(items):
        if "name" in item.items and item.items["name"].text == key:
            return number
    return int(key) if key.isascii() and key.isdigit() and int(key) < len(items) else None


def _problem(where: str, field: str, what: str, mend: str) -> Problem:
    return Problem(where, None, None, field, what, mend)
