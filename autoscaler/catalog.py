"""The policies in force: what the files say, and for a file that is broken now, what it said last."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from autoscaler.policy import Policy, PrometheusServer
from autoscaler.policy.files import SHARED_FILE, Loaded, Problem, Severity, load_policies
from autoscaler.policy.review import clashes

log = structlog.get_logger(__name__)


class Catalog:
    """A folder of policy files, read anew by ``reload``. ``dry_run``: nothing is bought, whatever a policy says."""

    def __init__(self, folder: Path, *, dry_run: bool) -> None:
        self._folder = folder
        self._dry_run = dry_run
        self._good: Mapping[str, tuple[Policy, ...]] = {}  # what each file that still exists said last without an error
        self.servers: Mapping[str, PrometheusServer] = {}
        self.errors: tuple[Problem, ...] = ()
        self.policies: tuple[Policy, ...] = ()

    def reload(self, accept: Callable[[Sequence[Policy]], None] = lambda policies: None) -> tuple[Policy, ...]:
        """The policies now in force, by name. Problems are logged; those that are errors are kept in ``errors``.

        ``accept`` is asked first, and where it raises, those of before stay in force.

        A file that is broken keeps its last good policies, but for those that no longer fit beside the others; so does
        every file while ``_shared.yaml`` is broken or the folder is gone. A file that was removed has none.
        """
        loaded = load_policies(self._folder)
        self.errors = tuple(problem for problem in loaded.problems if problem.severity is Severity.ERROR)
        for problem in loaded.problems:
            tell = log.error if problem.severity is Severity.ERROR else log.warning
            tell("policies.problem", file=problem.file, line=problem.line, problem=str(problem))
        broken = self._broken(loaded)
        kept = _fitting(loaded.policies, broken)
        found = sorted((*loaded.policies, *kept), key=lambda policy: policy.name)
        policies = tuple(policy.model_copy(update={"dry_run": True}) if self._dry_run else policy for policy in found)
        accept(policies)
        self._good = {**loaded.policies_by_file, **broken}
        self.servers = self._servers(loaded, kept)
        self.policies = policies
        log.info("policies.loaded", policies=len(policies), errors=len(self.errors))
        return policies

    def _broken(self, loaded: Loaded) -> dict[str, tuple[Policy, ...]]:
        """What files that cannot be used now said last."""
        folder_gone = not self._folder.is_dir()
        return {
            file: self._good[file]
            for file in sorted(self._good.keys() - loaded.policies_by_file.keys())
            if folder_gone or Path(file).exists()
        }

    def _servers(self, loaded: Loaded, kept: Sequence[Policy]) -> Mapping[str, PrometheusServer]:
        if any(Path(problem.file).name == SHARED_FILE for problem in self.errors):
            return self.servers
        asked = {policy.prometheus for policy in kept}
        still_asked = {name: server for name, server in self.servers.items() if name in asked}
        return {**still_asked, **loaded.shared.prometheus}


def _fitting(new: Sequence[Policy], broken: Mapping[str, tuple[Policy, ...]]) -> list[Policy]:
    """The last good policies of broken files that fit beside the new ones, whose files are the ones in order."""
    names = {policy.name for policy in new}
    kept = [policy for policies in broken.values() for policy in policies if policy.name not in names]
    if any(clashes([*new, *kept])):
        fitting: list[Policy] = []
        for policy in kept:
            if not any(clashes([*new, *fitting, policy])):
                fitting.append(policy)
        kept = fitting
    in_force = {policy.name for policy in kept}
    for file, policies in broken.items():
        last = {policy.name for policy in policies}
        log.error("policies.kept", file=file, policies=sorted(last & in_force), dropped=sorted(last - in_force))
    return kept
