"""README.md and the program say the same: every target, command and setting of one exists in the other."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from autoscaler.settings import describe_settings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    """Every command by its words, such as ``purchases list``."""
    from autoscaler.cli import main

    return dict(walk(main))


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if words:
        yield " ".join(words), command
    if isinstance(command, click.Group):
        for name, sub in command.commands.items():
            yield from walk(sub, (*words, name))


def code_of(markdown: str) -> str:
    """What stands in code blocks and between backticks, a line each."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", prose)])


def named_commands(markdown: str) -> set[str]:
    """Words after ``autoscaler`` in code, up to the first that is not a plain word: ``purchases list``."""
    found = re.findall(r"(?:^|[ /])autoscaler ((?:[a-z][a-z-]*(?:$|[ \t]))+)", code_of(markdown), re.MULTILINE)
    return {" ".join(words.split()) for words in found}


def named_targets(markdown: str) -> set[str]:
    """Words after ``make`` in code."""
    return set(re.findall(r"(?:^|[ ;&])make ([a-z][a-z-]*)", code_of(markdown), re.MULTILINE))


def named_settings(markdown: str) -> set[str]:
    """Environment variables of the program, written in full anywhere, `AUTOSCALER_PORT*` and its like aside."""
    return set(re.findall(r"\b(?:AUTOSCALER|ALIBABA_CLOUD)_[A-Z_]*[A-Z]\b(?!\*)", markdown))


def targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):.* ## ", makefile, re.MULTILINE))


def settings() -> set[str]:
    return {row.name for row in describe_settings()}


def file_forms() -> set[str]:
    return {f"{row.name}_FILE" for row in describe_settings() if row.secret}


def none_of(names: set[str]) -> None:
    """Fail with all of the names: a comparison would show the first few."""
    assert not names, ", ".join(sorted(names))


def test_every_make_target_the_readme_names_exists(readme: str) -> None:
    none_of(named_targets(readme) - targets())


def test_the_readme_names_the_two_commands(readme: str) -> None:
    none_of({"demo", "test"} - named_targets(readme))


def test_every_command_the_readme_names_exists(readme: str, commands: dict[str, click.Command]) -> None:
    def known(words: str) -> bool:
        # `buy edge-beijing` names the command `buy`; `purchases` alone names a group; `purchases lsit` names nothing.
        first, *rest = words.split()
        command = commands.get(first)
        return command is not None and (
            not isinstance(command, click.Group) or not rest or f"{first} {rest[0]}" in commands
        )

    none_of({words for words in named_commands(readme) if not known(words)})


def test_every_command_is_in_the_readme(readme: str, commands: dict[str, click.Command]) -> None:
    code = code_of(readme)
    leaves = {
        words for words, command in commands.items() if not isinstance(command, click.Group) and not command.hidden
    }
    none_of({words for words in leaves if not re.search(rf"\bautoscaler {words}\b", code)})


def test_every_setting_the_readme_names_exists(readme: str) -> None:
    none_of(named_settings(readme) - settings() - file_forms())


def test_every_setting_is_in_the_readme(readme: str) -> None:
    none_of(settings() - named_settings(readme))


@pytest.mark.parametrize(
    ("markdown", "commands", "targets"),
    [
        pytest.param("```sh\nautoscaler run --init\nmake test\n```", {"run"}, {"test"}, id="in a block"),
        pytest.param("say `autoscaler purchases list` or `make demo`", {"purchases list"}, {"demo"}, id="in a line"),
        pytest.param(
            "`.venv/bin/autoscaler buy edge-1 2`", {"buy"}, set(), id="with a path before and arguments after"
        ),
        pytest.param("The autoscaler is a daemon; make it run.", set(), set(), id="prose names nothing"),
    ],
)
def test_what_counts_as_naming(markdown: str, commands: set[str], targets: set[str]) -> None:
    assert (named_commands(markdown), named_targets(markdown)) == (commands, targets)
