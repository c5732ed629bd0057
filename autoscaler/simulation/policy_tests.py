"""Policy test files: a course of load, what goes wrong meanwhile, and what the policy has to decide.

A file is one test, or a list of ``tests`` over what they have in common. It is judged as policy files are: every
problem at once, each with its file, line, field and mend.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from autoscaler.model import GapReason
from autoscaler.policy import Policy, Setpoint
from autoscaler.policy.document import LARGEST_FILE, Node, Problem, Severity, merged, quoted, read_document
from autoscaler.policy.fields import shown
from autoscaler.policy.files import Loaded, load_policies
from autoscaler.policy.words import problem_at, schema_problems
from autoscaler.simulation.description import Description
from autoscaler.simulation.grid import READY, Unusable, columns_of, over, require_counts

_SUFFIXES: Final = frozenset({".yaml", ".yml"})
_LONGEST: Final = timedelta(days=366)  # of a test: a year and its leap day


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One policy test that can be run."""

    file: str
    line: int
    name: str
    policy: Policy
    description: Description
    expect_lines: tuple[int, ...]  # of each row of expect
    bought_line: int

    @property
    def ticks(self) -> int:
        """Evaluations: to the end of the longest series, or to the last expectation."""
        longest = max((len(values) for values in self.description.series.values()), default=0)
        return max(longest, self.description.lasts // self.policy.evaluate_every + 1)


@dataclass(frozen=True, slots=True)
class LoadedTests:
    """What test files came to."""

    tests: tuple[PolicyTest, ...]  # of files without an error, in their order
    problems: tuple[Problem, ...]
    files: int

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings may be."""
        return all(problem.severity is not Severity.ERROR for problem in self.problems)


def load_tests(sources: Sequence[Path]) -> LoadedTests:
    """Reads and judges test files, or folders of them; never raises for what is in them."""
    load = _Load()
    files = list(dict.fromkeys(file for source in sources for file in load.find(source)))
    tests = [test for file in files for test in load.read(file)]
    broken = {problem.file for problem in load.problems if problem.severity is Severity.ERROR}
    return LoadedTests(
        tests=tuple(test for test in tests if test.file not in broken),
        problems=tuple(dict.fromkeys(load.problems)),
        files=len(files),
    )


class _Load:
    """One loading: the problems found so far, and the folders of policies read for it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._folders: dict[Path, Loaded] = {}

    def find(self, source: Path) -> Iterator[Path]:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix in _SUFFIXES and path.is_file())
            if not inside:
                self._whole(source, "holds no policy tests", "write one, or name another folder")
            yield from inside
        elif source.is_file():
            yield source
        else:
            self._whole(source, "does not exist", "name a test file or a folder of them")

    def read(self, path: Path) -> Iterator[PolicyTest]:
        try:
            with path.open("rb") as stream:
                content = stream.read(LARGEST_FILE + 1)
        except OSError as error:
            self._whole(path, f"cannot be read: {error.strerror}", "make it a file that may be read")
            return
        tree, problems = read_document(str(path), content)
        self.problems += problems
        if tree is None:
            return
        if not isinstance(tree.value, dict):
            self.problems.append(tree.place.problem(f"{quoted(tree)} is not a map", "write key: value pairs"))
            return
        for row, tree_of_one in _rows(tree, self.problems):
            test = self._judged(path, row, tree_of_one)
            if test is not None:
                yield test

    def _judged(self, path: Path, row: Node, tree: Node) -> PolicyTest | None:
        try:
            description = Description.model_validate(tree.plain())
        except ValidationError as error:
            self.problems += schema_problems(Description, tree, error)
            return None
        policy = self._policy(path, tree, description.policy)
        if policy is None:
            return None
        problems = list(_misfits(tree, description, policy))
        self.problems += problems
        if problems:
            return None
        expected = tree.items["expect"].value if "expect" in tree.items else []
        rows = expected if isinstance(expected, list) else []
        return PolicyTest(
            file=str(path),
            line=row.place.line,
            name=description.name or path.stem,
            policy=policy,
            description=description,
            expect_lines=tuple(node.place.line for node in rows),
            bought_line=tree.items["bought"].place.line if "bought" in tree.items else row.place.line,
        )

    def _policy(self, path: Path, tree: Node, named: str) -> Policy | None:
        """The policy that a test is of; what is wrong with it is a problem of the test's."""
        place = tree.items["policy"].place
        is_path = "/" in named or Path(named).suffix in _SUFFIXES
        file = path.parent / named
        folder = file.parent if is_path else path.absolute().parent.parent
        if is_path and not file.is_file():
            self.problems.append(
                place.problem(f"{shown(named)} is not a file", "write its path from the test's folder")
            )
            return None
        loaded = self._folders.get(folder.resolve())
        if loaded is None:
            loaded = self._folders[folder.resolve()] = load_policies(_shortest(folder))
        found = [
            policy
            for where, policies in loaded.policies_by_file.items()
            for policy in policies
            if (Path(where).resolve() == file.resolve() if is_path else policy.name == named)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(policy.name for policy in found)
            what, mend = f"{shown(named)} makes {len(found)} policies", f"write the name of one: {names}"
            self.problems.append(place.problem(what, mend))
            return None
        errors = [problem for problem in loaded.problems if problem.severity is Severity.ERROR]
        broken = [problem for problem in errors if _concerns(Path(problem.file), named, file if is_path else None)]
        self.problems += broken
        known = [policy.name for policy in loaded.policies]
        near = get_close_matches(named, known, n=3) or known[:6]
        mend = "mend its file first" if broken else f"write one of {', '.join(near)}" if near else "write its path"
        what = f"{shown(named)} cannot be used" if broken else f"{shown(named)} is no policy of {_shortest(folder)}"
        self.problems.append(place.problem(what, mend))
        return None

    def _whole(self, path: Path, what: str, mend: str) -> None:
        self.problems.append(Problem(str(path), None, None, "", what, mend))


def _rows(tree: Node, problems: list[Problem]) -> Iterator[tuple[Node, Node]]:
    """Where each test of a file is written, and the test with what all have in common laid under it."""
    listed = tree.items.get("tests")
    if listed is None:
        yield tree, tree
        return
    shared = replace(tree, value={key: node for key, node in tree.items.items() if key != "tests"})
    if "name" in shared.items:
        problems.append(shared.items["name"].place.problem("is for one test alone", "move it under tests"))
    if not isinstance(listed.value, list) or not listed.value:
        if listed.value is not None:
            problems.append(listed.place.problem("is not a list of tests", "write - name: … for each"))
        return
    names: dict[str, int] = {}
    for row in listed.value:
        if not isinstance(row.value, dict):
            problems.append(row.place.problem(f"{quoted(row)} is not a test", "write - name: …, and its keys below"))
            continue
        if "name" not in row.items:
            problems.append(problem_at(row, ("name",), "is missing", "say in a sentence what the test shows"))
            continue
        named = row.items["name"]
        if named.text in names:
            what = f"is that of another test, on line {names[named.text]}"
            problems.append(named.place.problem(what, "give each its own"))
        names.setdefault(named.text, named.place.line)
        yield row, merged(shared, row)


def _misfits(tree: Node, description: Description, policy: Policy) -> Iterator[Problem]:
    """What a test says that its policy does not know."""
    columns = [name for name in columns_of(policy) if name != READY]
    overs = {over(check.name) for check in policy.checks}
    for name, values in description.series.items():
        if name not in columns:
            near = get_close_matches(name, columns, n=1) or columns
            mend = f"write {' or '.join(near)}" if near else "remove it: the policy queries nothing"
            yield problem_at(tree, ("series", name), f"is no check of {policy.name}", mend)
        elif name in overs:
            try:
                require_counts(name, [float(value) for value in values if not isinstance(value, GapReason)])
            except Unusable as problem:
                yield problem_at(tree, ("series", name), problem.what, problem.mend)
    for check in policy.checks:
        counted = description.ready or over(check.name) in description.series
        if isinstance(check, Setpoint) and check.name in description.series and not counted:
            what, mend = "is a mean, and nothing says over how many workers", f"add ready, or {over(check.name)}"
            yield problem_at(tree, ("series", check.name), what, mend)
    for index, fault in enumerate(description.faults):
        if fault.check is not None and fault.check not in columns:
            near = get_close_matches(fault.check, columns, n=1) or columns
            what = f"{shown(fault.check)} is no check of {policy.name}"
            yield problem_at(tree, ("faults", index, "check"), what, f"write {' or '.join(near)}")
    if description.lasts > _LONGEST:
        yield problem_at(tree, ("expect", len(description.expect) - 1, "at"), "is after a year", "test a shorter time")


def _concerns(file: Path, named: str, path: Path | None) -> bool:
    if file.stem == "_shared":
        return True
    if path is not None:
        return file.resolve() == path.resolve()
    return named == file.stem or named.startswith(f"{file.stem}-")


def _shortest(folder: Path) -> Path:
    """The folder as messages name it: from here, where that is shorter."""
    try:
        return folder.resolve().relative_to(Path.cwd())
    except ValueError:
        return folder
