"""Answers kept between two clicks; whatever is forgotten can be asked again."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST_KEPT = 64


class Drawer(Generic[T]):
    """Holds the last answers by what was asked. Several handlers use it at the same time."""

    def __init__(self) -> None:
        """Begin empty."""
        self._held: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str) -> T | None:
        """Look an answer up.

        Args:
            key: what was asked.

        Returns:
            The answer; None where it was never given, or is forgotten.
        """
        return self._held.get(key)

    def put(self, key: str, value: T) -> None:
        """Remember an answer, and forget the oldest.

        Args:
            key: what was asked.
            value: the answer.
        """
        with self._lock:
            self._held[key] = value
            self._held.move_to_end(key)
            while len(self._held) > _MOST_KEPT:
                self._held.popitem(last=False)

    def items(self) -> list[tuple[str, T]]:
        """List what is held.

        Returns:
            Key and answer, the newest last.
        """
        with self._lock:
            return list(self._held.items())
