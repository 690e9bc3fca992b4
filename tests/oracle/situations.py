"""The table of situations.sql: what a replica does in silence, and what only looks like it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROOFS = ("locks", "held", "differs", "stays", "resets", "unbuilt", "refused", "free")
"""How it shows that a replica ran a statement; situations.sql says what each means."""

TABLE = Path(__file__).with_name("situations.sql")

# Every set-up begins with these.
BASE = """
create schema atk;
grant usage on schema atk to reader;
create function atk.lockit(x int) returns int language plpgsql volatile as
  $q$begin perform pg_advisory_lock_shared(4242); return x; end$q$;
create function atk.lockb(x int) returns bool language plpgsql volatile as
  $q$begin perform pg_advisory_lock_shared(4242); return true; end$q$;
"""


class Statement(NamedTuple):
    """One statement and how it shows that a replica ran it."""

    proof: str
    sql: str


class Situation(NamedTuple):
    """What is made on the primary, and what is asked then.

    Attributes:
        path: the search path it is asked with.
        role: who asks; empty for the superuser.
        undo: what is run on the primary in the end, after the schema atk was dropped.
    """

    name: str
    setup: str
    statements: tuple[Statement, ...]
    path: str = "atk,public"
    role: str = ""
    undo: str = ""

    def of(self, *proofs: str) -> Iterator[str]:
        """The statements with one of `proofs`."""
        return (s.sql for s in self.statements if s.proof in proofs)


def parsed(text: str) -> list[Situation]:
    """The situations that `text`, in the form of situations.sql, holds."""
    fragments: dict[str, str] = {}
    found: list[Situation] = []
    blocks = re.split(r"^(?=--[=#] )", text, flags=re.MULTILINE)
    for block in blocks[1:]:
        head, _, body = block.partition("\n")
        name, _, uses = head[3:].strip().partition(" : ")
        if head.startswith("--="):
            fragments[name] = body
            continue
        setup, *sections = re.split(r"^--> ", body, flags=re.MULTILINE)
        options = dict(re.findall(r"^--: (\w+) (.+)$", setup, re.MULTILINE))
        statements = tuple(s for section in sections for s in _statements(section))
        whole = "".join([BASE, *(fragments[f] for f in uses.split()), setup])
        found.append(Situation(name, whole, statements, **options))
    return found


def _statements(section: str) -> Iterator[Statement]:
    """The statements of one proof: one a line, a line that starts with spaces goes on."""
    proof, _, body = section.partition("\n")
    if proof.strip() not in PROOFS:
        raise ValueError(f"{proof!r} is no proof: use one of {', '.join(PROOFS)}")
    for sql in re.split(r"\n(?=\S)", body.strip("\n")):
        if sql.strip():
            yield Statement(proof.strip(), sql.strip())


SITUATIONS = parsed(TABLE.read_text("utf-8"))
