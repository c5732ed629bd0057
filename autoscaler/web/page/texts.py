"""Every text of the page, in a file of its own for each language.

A text is a line with its values in braces; one that counts has two, for one and for several. Sentences of decisions,
messages of the cloud and names are no texts of the page: they are shown as they are.
"""

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

LANGUAGE = "en"


class Texts:
    """The texts of one language, by their names in its file: ``overview.title``."""

    def __init__(self, texts: Mapping[str, Any]) -> None:
        self._texts = dict(_flat(texts))

    def __call__(self, name: str, /, n: int | None = None, **values: object) -> str:
        """The text of that name with its values. ``n`` chooses between one and several, and is a value too.

        Raises KeyError for a name that there is not, and for a value that is missing.
        """
        text = self._texts[name]
        if isinstance(text, dict):
            text = text["one" if n == 1 else "other"]
        return str(text).format(n=n, **values)

    def has(self, name: str) -> bool:
        """Whether there is such a text."""
        return name in self._texts

    def names(self) -> frozenset[str]:
        """The names of all texts."""
        return frozenset(self._texts)


def load_texts(language: str = LANGUAGE) -> Texts:
    """The texts of a language. Raises FileNotFoundError where there are none."""
    return Texts(tomllib.loads((files(__package__) / f"texts.{language}.toml").read_text(encoding="utf-8")))


def _flat(texts: Mapping[str, Any], before: str = "") -> Any:
    for name, text in texts.items():
        if isinstance(text, dict) and text.keys() != {"one", "other"}:
            yield from _flat(text, f"{before}{name}.")
        else:
            yield f"{before}{name}", text
