"""The commands that judge policies: ``check`` by their files, ``explain`` by what they would do now, and why."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from autoscaler.cli.failure import Exit, fail, outside_systems, settings_or_fail
from autoscaler.cli.output import as_object, count, instant, json_option, print_json
from autoscaler.cli.records import ID

if TYPE_CHECKING:
    from autoscaler.cli.connections import Finding
    from autoscaler.ledger import Ledger
    from autoscaler.policy import Policy
    from autoscaler.policy.files import Loaded, Problem
    from autoscaler.settings import Settings


@click.command(short_help="Judge policy files.")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--print", "expand", is_flag=True, help="Print the policies with every default and where each value is from."
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a policy file, for editors.")
@click.option("--connect", is_flag=True, help="Ask each query, each cluster and each password too; nothing is bought.")
@json_option
def check(paths: tuple[Path, ...], expand: bool, schema: bool, connect: bool, as_json: bool) -> None:
    """Judge policy files, or folders of them; by default the folder that AUTOSCALER_POLICIES names.

    Every problem of every file is told at once, a line each: file and line, field, what is wrong, and the mend.
    Files that are checked together are judged beside each other. Warnings leave the exit status 0.

    \b
    Examples:
      autoscaler check
      autoscaler check policies/edge-beijing.yaml
      autoscaler check policies --print
      autoscaler check --schema > policy.schema.json
      autoscaler check --connect && autoscaler run
    """
    if expand + schema + connect > 1:
        raise click.UsageError("--print, --schema and --connect each print something else: give one of them")
    if schema:
        from autoscaler.policy.schema import json_schema

        click.echo(_json_text(json_schema()))
        return
    loads = _load(paths or (settings_or_fail().policies,))
    judged = _Judged.of(loads)
    if connect:
        from autoscaler.cli.connections import print_findings

        findings = _connect(loads)
        status = max((judged.status, *(finding.status for finding in findings)))
        if as_json:
            print_json({**judged.as_json(), "connections": findings})
        else:
            judged.echo()
            print_findings(findings)
        raise SystemExit(status)
    if as_json:
        print_json({**judged.as_json(), **({"expanded": _expanded_json(loads)} if expand else {})})
    elif expand:
        from autoscaler.cli.expansion import expansion

        judged.echo(err=True)
        click.echo("---\n".join(expansion(policy, loaded) for loaded in loads for policy in loaded.policies), nl=False)
    else:
        judged.echo()
    raise SystemExit(judged.status)


@click.command(short_help="Say what a policy would do now, and why.")
@click.argument("policy", required=False)
@click.option("--decision", "decision_id", type=ID, metavar="ID", help="A past decision, replayed.")
@json_option
def explain(policy: str | None, decision_id: int | None, as_json: bool) -> None:
    """Say in a sentence what a policy would do now, and why; then each rule's verdict, the readings and the supply.

    Asks Prometheus and the cloud, and reads the ledger. Buys nothing and records nothing. POLICY is a name, or the
    path of a policy file, which is then judged beside the files of its folder.

    With --decision a past decision is shown, and decided again from what was known then: it has to come out the same.

    \b
    Examples:
      autoscaler explain edge-beijing
      autoscaler explain drafts/edge-beijing.yaml
      autoscaler explain --decision 17
      autoscaler explain edge-beijing --json | jq '.decision.verdicts[] | select(.reason)'
    """
    if (policy is None) is (decision_id is None):
        raise click.UsageError("name a policy, or a past decision by --decision ID")
    if decision_id is not None:
        _replay(decision_id, as_json)
    elif policy is not None:
        _explain_now(policy, as_json)


def _json_text(content: object) -> str:
    import json

    return json.dumps(content, indent=2, ensure_ascii=False)


# --- check ---


def _load(paths: Sequence[Path]) -> "list[Loaded]":
    from autoscaler.policy.files import load_policies

    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path if path.is_dir() else path.parent, []).append(path)
    return [load_policies(together) for together in by_folder.values()]


class _Judged(NamedTuple):
    """What all that was loaded comes to."""

    policies: "tuple[Policy, ...]"
    files: int
    problems: "tuple[Problem, ...]"
    errors: int

    @classmethod
    def of(cls, loads: "Sequence[Loaded]") -> "_Judged":
        from autoscaler.policy.document import Severity

        problems = tuple(problem for loaded in loads for problem in loaded.problems)
        return cls(
            policies=tuple(policy for loaded in loads for policy in loaded.policies),
            files=sum(len(loaded.policies_by_file) for loaded in loads),
            problems=problems,
            errors=sum(problem.severity is Severity.ERROR for problem in problems),
        )

    @property
    def status(self) -> Exit:
        return Exit.NO if self.errors else Exit.DONE

    def as_json(self) -> dict[str, object]:
        return {
            "ok": not self.errors,
            "policies": [policy.name for policy in self.policies],
            "problems": self.problems,
        }

    def echo(self, *, err: bool = False) -> None:
        """A line for each problem, and one that closes."""
        for problem in self.problems:
            click.echo(_problem_line(problem), err=err)
        found = [
            count(number, noun)
            for number, noun in ((self.errors, "error"), (len(self.problems) - self.errors, "warning"))
            if number
        ]
        usable = f"{count(len(self.policies), 'policy')} in {count(self.files, 'file')} can be used"
        click.secho(
            f"{usable}; {', '.join(found) or 'no problems'}", err=err, fg="red" if self.errors else "green", bold=True
        )


def _problem_line(problem: "Problem") -> str:
    from autoscaler.policy.document import Severity

    text = str(problem)
    if problem.severity is Severity.ERROR:
        return text
    where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
    return f"{where}: {click.style('warning', fg='yellow')}{text.removeprefix(where)}"


def _expanded_json(loads: "Sequence[Loaded]") -> dict[str, object]:
    from autoscaler.policy.files import expanded

    return {
        policy.name: {
            "policy": expanded(policy),
            "origins": {path: str(origin) for path, origin in loaded.origins[policy.name].items()},
        }
        for loaded in loads
        for policy in loaded.policies
    }


def _connect(loads: "Sequence[Loaded]") -> "list[Finding]":
    from autoscaler.cli.connections import ask_clusters, ask_queries, try_passwords
    from autoscaler.clock import utc_now
    from autoscaler.logs import configure_logging
    from autoscaler.wiring import outside

    settings = settings_or_fail()
    configure_logging(log_level="error")
    findings: list[Finding] = []
    asking = outside(settings, os.environ)
    try:
        for loaded in loads:
            findings += ask_queries(asking, loaded.policies, loaded.shared.prometheus, utc_now())
            findings += ask_clusters(asking, loaded.policies)
            findings += try_passwords(loaded.policies, os.environ)
    finally:
        asking.close()
    return findings


# --- explain ---


def _explain_now(named: str, as_json: bool) -> None:
    settings = settings_or_fail()
    policy, loaded = chosen(named, settings)

    from autoscaler.cli.explanation import print_explanation
    from autoscaler.clock import utc_now
    from autoscaler.logs import configure_logging
    from autoscaler.wiring import outside

    configure_logging(log_level="error")
    with outside_systems(), _ledger(settings) as ledger:
        asking = outside(settings, os.environ)
        try:
            with asking.explaining(ledger, loaded.policies, loaded.shared.prometheus) as controller:
                evaluation = controller.explain(policy, utc_now())
        finally:
            asking.close()
    if as_json:
        print_json(as_object(evaluation))
    else:
        print_explanation(evaluation)


def _replay(decision_id: int, as_json: bool) -> None:
    from autoscaler.cli.explanation import print_explanation
    from autoscaler.cli.records import ledger_view
    from autoscaler.decision import differences

    with ledger_view() as ledger:
        evaluation = ledger.evaluation(decision_id)
    if evaluation is None:
        fail(Exit.USAGE, f"there is no decision {decision_id} any more or yet; see `autoscaler decisions`")
    differing = differences(evaluation)
    if as_json:
        print_json(
            {"id": decision_id, **as_object(evaluation), "replay": {"same": not differing, "differs": differing}}
        )
    else:
        print_explanation(evaluation)
        at = instant(evaluation.decision.at)
        verdict = f"it comes out otherwise: {', '.join(differing)}" if differing else "it comes out the same"
        click.echo(f"\nDecision {decision_id} of {at}, decided again from what was known then: {verdict}.")
    if differing:
        raise SystemExit(Exit.NO)


@contextmanager
def _ledger(settings: "Settings") -> "Iterator[Ledger]":
    """The ledger to look at; where nobody has begun one, one in memory, which is as empty."""
    from autoscaler.clock import utc_now
    from autoscaler.ledger import LedgerMissing, MemoryLedger, view_ledger

    ledger: Ledger
    try:
        ledger = view_ledger(settings.ledger().get_secret_value(), clock=utc_now)
    except LedgerMissing:
        ledger = MemoryLedger(clock=utc_now)
    try:
        yield ledger
    finally:
        ledger.close()


def chosen(named: str, settings: "Settings", *, alone: bool = False) -> "tuple[Policy, Loaded]":
    """The policy named, as the settings let it be, and all that was loaded with it.

    ``alone``: the file of a path is not judged beside the others of its folder, for drafts of one policy share workers.
    """
    from autoscaler.policy.files import load_policies

    path = Path(named)
    is_path = path.suffix in {".yaml", ".yml"} or "/" in named
    beside = [] if alone else [path.parent]
    loaded = load_policies([*beside, path] if is_path else settings.policies)
    found = [
        policy
        for file, policies in loaded.policies_by_file.items()
        for policy in policies
        if (file == str(path) if is_path else policy.name == named)
    ]
    if not found:
        _fail_to_find(named, path if is_path else None, loaded)
    if len(found) > 1:
        names = ", ".join(policy.name for policy in found)
        fail(
            Exit.USAGE,
            f"{named} makes {len(found)} policies, {names}: name one, with AUTOSCALER_POLICIES={path.parent}",
        )
    policy = found[0].model_copy(update={"dry_run": found[0].dry_run or settings.dry_run})
    return policy, loaded


def _fail_to_find(named: str, path: Path | None, loaded: "Loaded") -> NoReturn:
    """End the command: the policy's file has errors, or there is no such policy."""
    from difflib import get_close_matches

    from autoscaler.policy.document import Severity

    def is_of(file: Path) -> bool:
        if file.stem == "_shared" or file.is_dir() or not file.exists():
            return True
        return file == path if path is not None else named == file.stem or named.startswith(f"{file.stem}-")

    errors = [p for p in loaded.problems if p.severity is Severity.ERROR and is_of(Path(p.file))]
    if errors:
        lines = "\n".join(f"  {problem}" for problem in errors)
        fail(Exit.NO, f"{named} cannot be used:\n{lines}")
    near = get_close_matches(named, [policy.name for policy in loaded.policies], n=3)
    mend = f"did you mean {', '.join(near)}?" if near else "see `autoscaler check --print`"
    fail(Exit.USAGE, f"there is no policy {named}; {mend}")
