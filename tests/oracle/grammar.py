"""Counts how much of PostgreSQL's own regression scripts the parser's grammar does not know.

    python -m tests.oracle.grammar VERSION [--source DIR] [--show N]

The scripts come from Debian's source package of that version, or from a source tree of PostgreSQL
at DIR. Whatever the parser refuses is put to a server of that version to be parsed, and nothing
more: what its grammar refuses as well is no statement of that version. Prints how many statements
there are, how many are not parsed, by their first words, and each that is counted as a read that
runs on the primary for that.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import psycopg

from router.sql import bounds, parser, placeholders
from router.sql.classifier import Classifier, classify
from router.sql.intent import Kind
from router.sql.shorten import shortened
from router.testing import Cluster
from tests.oracle import corpus

GRAMMAR = ("scan.l", "gram.y", "parser.c")
"""The server's source files of which an error says that its grammar does not know a text."""


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
    # The SQLSTATE does not tell: the scanner has several, and the later analysis 42601 as well.
    source = result.error_field(psycopg.pq.DiagnosticField.SOURCE_FILE) or b""
    return source.decode() not in GRAMMAR


def costs_a_read(sql: str) -> bool:
    """Whether the router counts `sql` as a read that runs on the primary."""
    classifier = Classifier()
    classifier(sql)
    return classifier.unparsed[0] > 0


def tell(texts: list[str], version: str, show: int) -> None:
    """Print the counts of `texts`, as a server of `version` parses them."""
    with (
        Cluster(0, version=version) as cluster,
        psycopg.connect(cluster.primary.conninfo(), autocommit=True) as connection,
    ):
        said = connection.info.parameter_status("server_version")
        missed = [sql for sql in texts if unknown(sql) and parses(connection, sql)]
    reads = [sql for sql in missed if costs_a_read(sql)]
    wrong = [sql for sql in missed if classify(sql).kind is not Kind.WRITE]
    words = Counter(" ".join(sql.lower().split()[:2]) for sql in missed)
    share = len(missed) / len(texts)
    print(f"{said}: {len(texts):,} statements, not parsed: {len(missed)} ({share:.2%})")
    print(f"  begin like a read: {len(reads)}; called anything but a write: {len(wrong)}")
    print("  by first words:", ", ".join(f"{n} × {word}" for word, n in words.most_common(30)))
    for sql in reads[:show]:
        print("  |", " ".join(sql.split())[:150])


def main() -> None:
    """Count what was asked for."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("version")
    arguments.add_argument("--source", type=Path)
    arguments.add_argument("--show", type=int, default=10)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = given.source or corpus.fetch(Path(made), (f"postgresql-{given.version}",))
        tell(statements(root), given.version, given.show)


if __name__ == "__main__":
    main()
