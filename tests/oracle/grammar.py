"""Counts how much of PostgreSQL's own regression scripts the parser's grammar does not know.

    python -m tests.oracle.grammar [--package postgresql-18 …] [--keep DIR] [--show N]
    python -m tests.oracle.grammar --source DIR

The scripts come from Debian's source packages. Whatever the parser refuses is put to a server of
that version to be parsed, and nothing more: what it refuses as well is no statement. With --source
they are those of a source tree of PostgreSQL, for a version of which there is no server yet: what
its scripts are expected to print says what is refused, but for some 20 texts. Prints how
many statements there are, how many are not parsed, by their first word, and each that begins like
a read, which runs on the primary for that.
"""

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg

from router.sql import bounds, parser, placeholders
from router.sql.classifier import classify
from router.sql.intent import Kind
from router.sql.shorten import shortened
from router.testing import Cluster
from tests.oracle import corpus

SYNTAX_ERROR = b"42601"
PACKAGES = {"postgresql-18": 18, "postgresql-19": 19}
READS = ("select", "with", "values", "table", "(")
_VARIABLE = re.compile(r"(?<![:\w]):(?:'\w+'|\"?[A-Za-z_]\w*\"?)")
"""One of psql's that only a run would have filled."""


def statements(root: Path) -> list[str]:
    """The texts of all scripts of the core below `root`, each once."""
    found: dict[str, None] = {}
    for path in corpus.schedule(root):
        script = corpus.Script(path.read_text(errors="replace"))
        for item in script:
            if isinstance(item, corpus.Statement):
                found[item.text] = None
                if item.text[:4].lower() == "copy" and "stdin" in item.text.lower():
                    script.data()
    return list(found)


def unknown(sql: str) -> bool:
    """Whether the parser does not know `sql` as the server is given it, without placeholders."""
    text = shortened(sql)
    for each in (text, placeholders.uncommented(text)):
        try:
            if each is not None:
                parser.tree(each)
                return False
        except (parser.NotParsed, bounds.TooComplex, ValueError):
            continue
    return True


def parses(connection: psycopg.Connection, sql: str) -> bool:
    """Whether the server's own grammar knows `sql`; it is not run."""
    result = connection.pgconn.prepare(b"", sql.encode())
    return result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) != SYNTAX_ERROR


def printed(root: Path) -> str:
    """What the scripts below `root` are expected to print, with and without comments, each run of
    blanks as one."""
    outputs = [p.read_text(errors="replace") for p in root.glob("src/test/regress/expected/*.out")]
    bare = [re.sub(r"--.*", "", output) for output in outputs]
    return " ".join("\n".join(outputs + bare).split())


def expected(sql: str, output: str) -> bool:
    """Whether by `output`, as `printed` has it, the server's own grammar knows `sql`."""
    if _VARIABLE.search(sql):
        filled = _VARIABLE.sub(lambda found: "''" if "'" in found[0] else "x", sql)
        if not unknown(filled):
            return False
    try:
        parser.tree(sql)
        said = "syntax error"
    except parser.NotParsed as error:
        said = " ".join(parser.message(error).split())
    echoed = " ".join(sql.split())
    return not any(f"{echoed}; ERROR: {each}" in output for each in ("syntax error", said))


def count(package: str, version: int, work: Path, show: int) -> None:
    """Print the counts of one version, by a server of it."""
    texts = statements(corpus.fetch(work / package, (package,)))
    with (
        Cluster(0, version=version) as cluster,
        psycopg.connect(cluster.primary.conninfo(), autocommit=True) as connection,
    ):
        tell(package, texts, lambda sql: parses(connection, sql), show)


def tell(name: str, texts: list[str], known: Callable[[str], bool], show: int) -> None:
    """Print the counts of `texts`, of which the server's grammar knows those that are `known`."""
    missed = [sql for sql in texts if unknown(sql) and known(sql)]
    reads = [sql for sql in missed if sql.lower().startswith(READS)]
    wrong = [sql for sql in missed if classify(sql).kind is not Kind.WRITE]
    words = Counter(" ".join(sql.lower().split()[:2]) for sql in missed)
    share = len(missed) / len(texts)
    print(f"{name}: {len(texts):,} statements, not parsed: {len(missed)} ({share:.2%})")
    print(f"  begin like a read: {len(reads)}; called anything but a write: {len(wrong)}")
    print("  by first words:", ", ".join(f"{n} × {word}" for word, n in words.most_common(30)))
    for sql in reads[:show]:
        print("  |", " ".join(sql.split())[:150])


def main() -> None:
    """Count what was asked for."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--package", nargs="*", default=list(PACKAGES))
    arguments.add_argument("--source", type=Path)
    arguments.add_argument("--keep", type=Path)
    arguments.add_argument("--show", type=int, default=10)
    given = arguments.parse_args()
    if given.source:
        output = printed(given.source)
        texts = statements(given.source)
        tell(str(given.source), texts, lambda sql: expected(sql, output), given.show)
        return
    with tempfile.TemporaryDirectory() as made:
        for package in given.package:
            count(package, PACKAGES[package], given.keep or Path(made), given.show)


if __name__ == "__main__":
    main()
