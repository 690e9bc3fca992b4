"""What the catalog holds of the database's own objects: for each name what a statement may mean,
and what running it would do.

`router.sql.closure` makes them. Those of PostgreSQL itself stand in `router.sql.builtins`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NO_TYPES: frozenset[int] = frozenset()
NO_COLUMNS: Mapping[str, frozenset[int]] = MappingProxyType({})
"""Types matter where a statement with values of them may run something unsafe."""


class Effect(enum.IntEnum):
    """What a standby makes of an object that is used; the greater outweighs the lesser."""

    SAFE = 0
    REFUSED = 1
    UNKNOWN = 2
    ACTS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What using an object does.

    Attributes:
        effect: whether a standby runs it, refuses it, or acts.
        why: the shortest chain of uses that leads to it, printable.
        binds: it leaves something in its session, or nobody knows.
        ddl: it changes what the catalog says, or nobody knows.
        signals: it signals a process of the server.
    """

    effect: Effect
    why: str
    binds: bool = False
    ddl: bool = False
    signals: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """One overload of a function that a user made.

    Attributes:
        least, most: how many arguments it takes; `most` is None for a variadic one.
        verdict: why a call of it is no read; None where it is.
        planned: the same of a statement that is only planned.
        local: what makes its answer one server's own; empty for none.
        types: of the types it takes and gives, those that matter.
    """

    schema: str
    name: str
    least: int
    most: int | None
    verdict: Verdict | None = None
    planned: Verdict | None = None
    local: str = ""
    types: frozenset[int] = NO_TYPES

    def accepts(self, n: int | None) -> bool:
        """Whether a call with `n` arguments may mean this overload; None is any number."""
        return n is None or (self.least <= n and (self.most is None or n <= self.most))


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """A table, view, sequence or the like.

    Attributes:
        verdict: why it is not read on a replica; None where it may be.
        planned: the same of a statement that is only planned.
        written_binds: changing its rows leaves something in the session: by a trigger, say.
        local: what makes its answer one server's own; empty for none.
        columns: of the types of its columns, those that matter.
    """

    schema: str
    name: str
    verdict: Verdict | None = None
    planned: Verdict | None = None
    written_binds: bool = False
    local: str = ""
    columns: Mapping[str, frozenset[int]] = field(default_factory=lambda: NO_COLUMNS)


@dataclass(frozen=True, slots=True, eq=False)
class Type:
    """A type.

    Attributes:
        types: it and those it is made of, as far as they matter.
    """

    schema: str
    name: str
    types: frozenset[int] = NO_TYPES


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """An operator that no read may have, or whose answer is one server's own.

    Attributes:
        operands: types, all of which a statement must have to mean it; PostgreSQL's own are left
            out, for any statement may have them.
        planned: what it does in a statement that is only planned; None for nothing.
        local: what makes its answer one server's own; empty for none.
    """

    name: str
    verdict: Verdict | None
    planned: Verdict | None = None
    operands: frozenset[int] = NO_TYPES
    local: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A cast that has to be asked for, by a function that no read may call, or a local one.

    Attributes:
        source: type whose values it takes, 0 for one of PostgreSQL's own.
        target: type it gives.
        target_name: name of that type.
        planned: what it does in a statement that is only planned; None for nothing.
        local: what makes its answer one server's own; empty for none.
    """

    source: int
    target: int
    target_name: str
    verdict: Verdict | None
    planned: Verdict | None = None
    local: str = ""
