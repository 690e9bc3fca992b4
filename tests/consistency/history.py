"""What was written and read, and whether anybody missed their own write or went back in time.

Every key has one writer, which writes 1, 2, 3 …; so a read is judged by the number it found.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["write", "read"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One finished operation; times are monotonic seconds.

    Attributes:
        context: whose promise it is: a request's number, or 0 for the process's root context.
        kind: "write" or "read".
        key: of the row.
        version: written, or found; 0 for no row.
        began, ended: when it was called, when it returned.
        port: of the server that answered a read.
    """

    context: int
    kind: Kind
    key: int
    version: int
    began: float
    ended: float
    port: int = 0


def violations(history: Iterable[Operation]) -> Iterator[str]:
    """What breaks a promise, one line each.

    Read your own writes: a read finds at least what any write of its context, that had returned
    before the read began, has written. Monotonic reads: nor less than a read of its context that
    had returned before; not promised outside requests, in context 0.
    """
    threads: dict[tuple[int, int], list[Operation]] = defaultdict(list)
    for operation in history:
        threads[operation.context, operation.key].append(operation)
    for (context, _), operations in threads.items():
        by_end = sorted(operations, key=lambda o: o.ended)
        seen, known = 0, None
        for read in sorted((o for o in operations if o.kind == "read"), key=lambda o: o.began):
            while seen < len(by_end) and by_end[seen].ended < read.began:
                earlier = by_end[seen]
                seen += 1
                counts = earlier.kind == "write" or context != 0
                if counts and (known is None or earlier.version > known.version):
                    known = earlier
            if known is not None and read.version < known.version:
                what = "missed its own" if known.kind == "write" else "is older than the earlier"
                yield f"{read} {what} {known}"
