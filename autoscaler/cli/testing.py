"""The command that tests policies, as promtool tests alert rules: told in words, in JSON, and in JUnit's XML."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import click

from autoscaler.cli.failure import Exit, fail, settings_or_fail
from autoscaler.cli.output import WrittenFile, count, json_option, length, print_json

if TYPE_CHECKING:
    from autoscaler.simulation.policy_tests import LoadedTests
    from autoscaler.simulation.testing import Failure, Tested


@click.command(short_help="Run the tests of policies.")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option("--junit", metavar="FILE", type=WrittenFile(), help="Write JUnit's XML there too.")
@json_option
def test(paths: tuple[Path, ...], junit: Path | None, as_json: bool) -> None:
    """Run the tests of policies: files, or folders of them; by default `tests` in the folder of policies.

    A test file says how load runs, evaluation by evaluation, and what the policy has to decide. The daemon's own rules
    decide, on virtual time: nothing is asked and nothing is bought. The examples in policies/tests explain
    themselves.

    \b
      policy: edge-beijing
      start: 2026-06-01T10:00:00+08:00
      ready: 12
      series: {sessions: "4000x9 6000x30"}    # promtool's notation, a value for each evaluation; _ is a gap
      faults: [{at: 8m, purchase: unknown}]   # or gap, nodes, lost, cluster
      expect:
        - {at: 5m, outcome: hold, reason: stabilization}
        - {at: 6m30s, outcome: scale_out, add: 5}
      bought: 5

    \b
    Examples:
      autoscaler test
      autoscaler test policies/tests/edge-beijing.yaml
      autoscaler test --junit report.xml
    """
    sources = paths or (settings_or_fail().policies / "tests",)

    from autoscaler.simulation.policy_tests import load_tests
    from autoscaler.simulation.testing import run_test

    loaded = load_tests(sources)
    results = [run_test(each) for each in loaded.tests]
    failed = [result for result in results if not result.ok]
    ok = loaded.ok and not failed
    if junit is not None:
        _write_junit(junit, loaded, results)
    if as_json:
        print_json({"ok": ok, "tests": [_as_json(result) for result in results], "problems": loaded.problems})
    else:
        for problem in loaded.problems:
            click.echo(str(problem))
        for result in failed:
            _echo_failed(result)
        click.secho(_summary(loaded, results, failed), fg="green" if ok else "red", bold=True)
    raise SystemExit(Exit.DONE if ok else Exit.NO)


def _echo_failed(result: "Tested") -> None:
    test = result.test
    click.echo(f"{test.file}:{test.line}: {test.policy.name}: {test.name}")
    for failure in result.failures:
        click.echo(f"  {failure.file}:{failure.line}: {_when(failure)}")
        click.echo(f"    expected  {failure.expected}")
        click.echo(f"    got       {failure.got}")
        click.echo(f"    because   {failure.sentence}")


def _when(failure: "Failure") -> str:
    return "in the end" if failure.at is None else f"at {length(failure.at)}"


def _summary(loaded: "LoadedTests", results: "list[Tested]", failed: "list[Tested]") -> str:
    policies = len({result.test.policy.name for result in results})
    ran = f"{count(len(results), 'test')} of {count(policies, 'policy')}"
    parts = [f"{len(failed)} of {ran} failed" if failed else f"{ran} passed"]
    if loaded.problems:
        parts.append(count(len(loaded.problems), "problem"))
    return ", ".join(parts)


def _as_json(result: "Tested") -> dict[str, object]:
    test = result.test
    return {
        "file": test.file,
        "line": test.line,
        "policy": test.policy.name,
        "name": test.name,
        "ok": result.ok,
        "failures": result.failures,
    }


def _write_junit(path: Path, loaded: "LoadedTests", results: "list[Tested]") -> None:
    suites = Element("testsuites", name="autoscaler test")
    for file, cases in _by_file(loaded, results):
        failures = sum(case.find("failure") is not None for case in cases)
        errors = sum(case.find("error") is not None for case in cases)
        counted = {"name": file, "tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
        SubElement(suites, "testsuite", counted).extend(cases)
    indent(suites)
    try:
        ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)
    except OSError as error:
        fail(Exit.USAGE, f"{path} cannot be written: {error.strerror}")


def _by_file(loaded: "LoadedTests", results: "list[Tested]") -> Iterator[tuple[str, list[Element]]]:
    """Each file's test cases; a problem is a case that could not be run."""
    cases: dict[str, list[Element]] = {}
    for problem in loaded.problems:
        case = Element("testcase", name=_xml(problem.field or "file"), classname=_xml(problem.file))
        SubElement(case, "error", message=_xml(str(problem)))
        cases.setdefault(_xml(problem.file), []).append(case)
    for result in results:
        test = result.test
        case = Element("testcase", name=_xml(test.name), classname=test.policy.name, file=_xml(test.file))
        case.set("line", str(test.line))
        for failure in result.failures:
            message = f"{_when(failure)}: expected {failure.expected}, got {failure.got}"
            element = SubElement(case, "failure", message=_xml(message))
            element.text = _xml(f"{failure.file}:{failure.line}: {message}\n{failure.sentence}")
        cases.setdefault(_xml(test.file), []).append(case)
    yield from sorted(cases.items())


def _xml(text: str) -> str:
    """The text without what XML cannot hold."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in text)
