"""Rows of ``each``: one policy per row, with ``${key}`` in the file's strings replaced by the row's value.

Nothing cleverer: no expressions, no nesting, no rows of rows. A string that is nothing but ``${key}`` becomes the row's
value as it is, so a number stays a number.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from autoscaler.policy.document import Node, Problem, quoted
from autoscaler.policy.fields import LONGEST_NAME, is_policy_name
from autoscaler.policy.words import problem_at

PLACEHOLDER: Final = re.compile(r"\$\{([^{}]*)\}")


def unfilled(tree: Node, mend: str) -> Iterator[Problem]:
    """A problem for each string that waits for a row where there is none."""
    for _, node in tree.walk():
        if isinstance(node.value, str) and PLACEHOLDER.search(node.value):
            yield node.place.problem("holds ${…}, and nothing fills it in", mend)


def rows(each: Node, stem: str, problems: list[Problem]) -> Iterator[tuple[str, Node]]:
    """Policy name and row, for each usable row; what is wrong with the others is added to ``problems``."""
    listed = each.value if isinstance(each.value, list) else []
    if not listed and each.value is not None:
        problems.append(each.place.problem("is not a list of rows", "write - {name: …, key: value} for each policy"))
    for row in listed:
        if not isinstance(row.value, dict):
            problems.append(row.place.problem(f"{quoted(row)} is not a row", "write {name: …, key: value}"))
            continue
        for node in row.items.values():
            if isinstance(node.value, dict | list):
                problems.append(node.place.problem(f"{quoted(node)} cannot fill a text", "give rows single values"))
        named = row.items.get("name")
        if named is None:
            problems.append(problem_at(row, ("name",), "is missing", "give each row a name of its own"))
        elif not is_policy_name(named.text) or len(f"{stem}-{named.text}") > LONGEST_NAME:
            mend = "use few of a-z, 0-9, '-' and '.', with a letter or digit first and last"
            problems.append(named.place.problem(f"{quoted(named)} cannot end a policy's name", mend))
        else:
            yield f"{stem}-{named.text}", row


def filled(node: Node, row: Mapping[str, Node], problems: list[Problem]) -> Node:
    """``node`` with the row's values in place; keys that the row lacks are added to ``problems``."""
    if isinstance(node.value, dict):
        return replace(node, value={key: filled(part, row, problems) for key, part in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[filled(part, row, problems) for part in node.value])
    if not isinstance(node.value, str) or "${" not in node.value:
        return node
    name = row["name"].text
    unknown = [key for key in PLACEHOLDER.findall(node.value) if key not in row]
    if unknown:
        said = "a key" if node.secret else f"${{{unknown[0]}}}"
        what = f"names {said} that row {name} does not have"
        problems.append(node.place.problem(what, f"use one of {', '.join(row)}, or add it to every row"))
        return replace(node, value=None)  # no value, so that nothing is said of half a one
    whole = PLACEHOLDER.fullmatch(node.value)
    if whole is not None:
        value = row[whole[1]]
        return Node(replace(value.place, field=node.place.field, row=name), value.value, value.text, node.secret)
    text = PLACEHOLDER.sub(lambda match: row[match[1]].text, node.value)
    return Node(replace(node.place, row=name), text, text, node.secret)
