"""A cache that is bounded by the number of its entries and by the bytes of their keys."""

import sys
from hashlib import blake2b
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

ENTRY = 200
"""Bytes that an entry takes beside its key, about: its place in the dict, and its part of what it
is known by."""

LONG = 4096
"""Characters of a text from which on it is no key itself, but its digest."""


class Cache(Generic[K, V]):
    """Values by key; what came first goes first. Only reading `entries` is safe without a lock.

    Args:
        max_entries: how many are kept.
        max_bytes: what they may take together.

    Attributes:
        entries: the values by key; for reading.
        bytes: what they take, about.
    """

    __slots__ = ("_max_bytes", "_max_entries", "bytes", "entries")

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.entries: dict[K, V] = {}
        self.bytes: int = 0

    def put(self, key: K, value: V) -> None:
        """Keep `value` for `key`. The oldest tenth goes where there are too many."""
        entries = self.entries
        if key not in entries:
            if len(entries) >= self._max_entries:
                self._drop(max(1, self._max_entries // 10), self._max_bytes)
            size = _size(key)
            if self.bytes + size > self._max_bytes:
                self._drop(0, self._max_bytes * 9 // 10 - size)
            self.bytes += size
        entries[key] = value

    def _drop(self, count: int, most: int) -> None:
        """Drop the `count` oldest, and more while the rest takes over `most` bytes."""
        entries = self.entries
        for key in list(entries):
            if count <= 0 and self.bytes <= most:
                return
            del entries[key]
            self.bytes -= _size(key)
            count -= 1


def _size(key: object) -> int:
    if isinstance(key, tuple):
        return ENTRY + sum(map(_size, key))
    return ENTRY + sys.getsizeof(key)


def key_of(text: str) -> str | bytes:
    """What `text` is known by: itself, or where it is long a digest, so that nothing keeps it."""
    if len(text) <= LONG:
        return text
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
