"""Chance without gaps: every card of a deck is drawn before any is drawn again."""

import random
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Deck(Generic[T]):
    """Cards in an order of chance, shuffled anew whenever all are drawn; a card may be in it several times."""

    def __init__(self, cards: Iterable[T], draw: random.Random) -> None:
        self._cards = tuple(cards)
        self._draw = draw
        self._left: list[T] = []

    def next(self) -> T:
        """Draw one. IndexError if there is none at all."""
        if not self._left:
            self._left = self._draw.sample(self._cards, len(self._cards))
        return self._left.pop()
