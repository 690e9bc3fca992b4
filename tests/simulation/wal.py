"""The WAL of one timeline, and how positions in it are counted."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, TypeAlias

from router.connect.probe import PAGE_HEADER, SEGMENT_HEADER, WAL_PAGE

START = 0x1000000
"""Where the WAL of a new cluster begins."""
SEGMENT = 16 << 20
"""Bytes of a WAL segment."""

Key: TypeAlias = tuple[str, int]
"""Table and id of a row."""


class Line:
    """The WAL of one timeline from where it left its `parent`, at `begin`.

    The versions of each row, and each end of a transaction, are kept by position, in order.
    """

    __slots__ = (
        "begin", "born", "checkpoints", "commits", "ends", "number", "parent", "versions", "whens",
    )  # fmt: skip

    def __init__(self, number: int, parent: "Line | None", begin: int, born: float = 0.0) -> None:
        self.number = number
        self.born = born
        self.parent = parent
        self.begin = begin
        self.versions: dict[Key, tuple[list[int], list[Any]]] = {}
        self.ends: list[int] = []
        self.whens: list[float] = []
        self.commits: list[tuple[int, int, float]] = []  # position, transaction, when
        self.checkpoints: list[tuple[int, int]] = []  # end of the record, where replay would begin

    def value(self, key: Key, lsn: int) -> Any:
        """The newest version of the row `key` up to `lsn`."""
        line: Line | None = self
        while line is not None:
            found = line.versions.get(key)
            if found is not None:
                at = bisect_right(found[0], lsn)
                if at:
                    return found[1][at - 1]
            lsn = min(lsn, line.begin)
            line = line.parent
        return _FIRST[key[0]]

    def changed(self, key: Key) -> int:
        """Where the newest version of the row `key` was committed."""
        line: Line | None = self
        limit: float = inf
        while line is not None:
            found = line.versions.get(key)
            at = 0 if found is None else bisect_right(found[0], limit)
            if found is not None and at:
                return found[0][at - 1]
            limit = min(limit, line.begin)
            line = line.parent
        return 0

    def put(self, lsn: int, when: float, txid: int, writes: Mapping[Key, Any]) -> None:
        """A commit record that ends at `lsn`."""
        for key, value in writes.items():
            self.put_version(key, lsn, value)
        self.ends.append(lsn)
        self.whens.append(when)
        self.commits.append((lsn, txid, when))

    def put_version(self, key: Key, lsn: int, value: Any) -> None:
        """A version of the row `key` from `lsn` on."""
        found = self.versions.get(key)
        if found is None:
            found = self.versions[key] = ([], [])
        found[0].append(lsn)
        found[1].append(value)

    def cut(self, lsn: int) -> list[int]:
        """Forget what is past `lsn`, which nobody else has; returns the transactions lost."""
        for lsns, values in self.versions.values():
            keep = bisect_right(lsns, lsn)
            del lsns[keep:], values[keep:]
        keep = bisect_right(self.ends, lsn)
        del self.ends[keep:], self.whens[keep:]
        keep = bisect_left(self.commits, (lsn + 1,))
        lost = [txid for _, txid, _ in self.commits[keep:]]
        del self.commits[keep:]
        self.checkpoints = [found for found in self.checkpoints if found[0] <= lsn]
        return lost

    def last_checkpoint(self, upto: float) -> tuple[int, int]:
        """Where replay would begin by the last checkpoint up to `upto`, and its timeline."""
        line: Line | None = self
        while line is not None:
            for end, redo in reversed(line.checkpoints):
                if end <= upto:
                    return redo, line.number
            upto = min(upto, line.begin)
            line = line.parent
        return START, 1

    def last_end(self, after: int, upto: int) -> float | None:
        """When the last transaction ended whose record is past `after` and not past `upto`."""
        line: Line | None = self
        while line is not None:
            at = bisect_right(line.ends, upto)
            if at:
                return line.whens[at - 1] if line.ends[at - 1] > after else None
            upto = min(upto, line.begin)
            line = line.parent
        return None

    def ends_between(self, after: int, upto: int) -> Iterator[int]:
        """The ends of transactions past `after`, up to `upto`, in order."""
        if self.parent is not None and after < self.begin:
            yield from self.parent.ends_between(after, min(upto, self.begin))
        yield from self.ends[bisect_right(self.ends, after) : bisect_right(self.ends, upto)]

    def commits_between(self, after: int, upto: int) -> Iterator[tuple[int, float]]:
        """The commits past `after`, up to `upto`, in order, and when they were made."""
        if self.parent is not None and after < self.begin:
            yield from self.parent.commits_between(after, min(upto, self.begin))
        for at in range(bisect_left(self.commits, (after + 1,)), len(self.commits)):
            lsn, _, when = self.commits[at]
            if lsn > upto:
                break
            yield lsn, when

    def at(self, lsn: int) -> "Line":
        """The timeline, of this one and those before, that a record which ends at `lsn` is on."""
        line = self
        while line.parent is not None and lsn <= line.begin:
            line = line.parent
        return line

    def left_at(self, older: "Line") -> float | None:
        """Up to where this one has all of `older` in its history; None where it has nothing."""
        line, limit = self, inf
        while line is not older:
            limit = min(limit, line.begin)
            if line.parent is None:
                return None
            line = line.parent
        return limit


_FIRST: dict[str, Any] = {"item": None, "counter": 0, "seq": 0}


def header(lsn: int) -> int:
    """Bytes of the header of the page that begins at `lsn`; 0 where none does."""
    if lsn % WAL_PAGE:
        return 0
    return PAGE_HEADER if lsn % SEGMENT else SEGMENT_HEADER


def lsn_text(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
