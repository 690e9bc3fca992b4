"""The share of reads that replicas serve, page by page of a mixed workload.

    python benchmarks/bench_share.py [--rounds 20]

Each page is one request context of a web application, over a cluster whose replicas have caught
up: SQLAlchemy's ORM, raw SQL, bulk texts, `schema_translate_map`, types of extensions, and streams
and copies by psycopg's pool. All of it only reads; the router counts where each statement ran.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

sys.path.insert(0, str(Path(__file__).parents[1]))

import router
import router.psycopg
from router.testing import Cluster

SCHEMA = """
CREATE EXTENSION citext;
CREATE EXTENSION hstore;
CREATE EXTENSION pg_trgm;
CREATE SCHEMA tenant;
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE author (id serial PRIMARY KEY, name text, mail citext, extra hstore, active span);
CREATE TABLE book (id serial PRIMARY KEY, author_id int REFERENCES author, title text);
CREATE TABLE tenant.author (id serial PRIMARY KEY, name text);
INSERT INTO author (name, mail) SELECT 'n' || i, 'M' || i || '@x' FROM generate_series(1, 200) i;
INSERT INTO book (author_id, title) SELECT i % 200 + 1, 't' || i FROM generate_series(1, 999) i;
INSERT INTO tenant.author (name) SELECT 't' || i FROM generate_series(1, 50) i;
CREATE VIEW shelf AS
    SELECT a.name, count(*) FROM author a JOIN book b ON b.author_id = a.id GROUP BY 1;
CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM book;
SELECT lo_from_bytea(4711, 'a large object');
"""


class Base(DeclarativeBase):
    """Of the tables below."""


class Author(Base):
    """Somebody who writes."""

    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship()


class Book(Base):
    """What was written."""

    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    title: Mapped[str]


def orm(engine: sa.Engine, n: int) -> None:
    """Objects, what belongs to them, and aggregates."""
    with Session(engine) as session:
        author = session.get_one(Author, n % 200 + 1)
        assert author.books
        session.scalars(sa.select(Book).where(Book.id.in_(range(n, n + 50)))).all()
        session.scalar(sa.select(sa.func.count()).select_from(Author))


def raw(engine: sa.Engine, n: int) -> None:
    """Text with a trace in a comment, views, and what the server's functions compute."""
    with engine.connect() as connection:
        for query in (
            f"SELECT * FROM shelf /* trace {n} */",
            "SELECT count(*) FROM summary",
            f"SELECT now(), lower(name), to_char(id, '999') FROM author WHERE id = {n}",
            "SELECT regproc('now'), regclass('author'), date('2020-01-01'), int4('7')",
            "EXPLAIN SELECT * FROM book",
        ):
            connection.execute(sa.text(query)).all()


def bulk(engine: sa.Engine, n: int) -> None:
    """Long lists and conditions."""
    ids = ", ".join(str(n + i) for i in range(30_000))
    chain = " OR ".join(f"(id = {n + i} AND title = 't{i}')" for i in range(3000))
    values = ", ".join(f"({n + i}, 'x{i}')" for i in range(20_000))
    with engine.connect() as connection:
        for query in (
            f"SELECT count(*) FROM book WHERE id IN ({ids})",
            f"SELECT count(*) FROM book WHERE {chain}",
            f"SELECT count(*) FROM (VALUES {values}) v (id, x) JOIN book USING (id)",
        ):
            connection.exec_driver_sql(query).all()


def tenants(engine: sa.Engine, n: int) -> None:
    """One model in the schema of each tenant."""
    tenant = engine.execution_options(schema_translate_map={None: "tenant"})
    with Session(tenant) as session:
        session.scalars(sa.select(Author.name)).all()
        session.scalar(sa.select(Author.name).where(Author.id.in_([n % 50 + 1, 2])))
    with tenant.connect() as connection:
        connection.execute(sa.select(sa.func.max(Author.id))).all()


def extensions(engine: sa.Engine, n: int) -> None:
    """Types and functions of extensions, and a range of the application's own."""
    with engine.connect() as connection:
        for query in (
            f"SELECT * FROM author WHERE mail = 'm{n}@X'::citext",
            f"SELECT * FROM author WHERE name::citext = 'N{n}'",
            "SELECT citext('a') = 'A'",
            "SELECT id FROM author WHERE active @> 1.5::float8",
            "SELECT span(1, 2) && active FROM author",
            "SELECT extra -> 'a', hstore('a', 'b') FROM author",
            f"SELECT similarity(name, 'n{n}') FROM author ORDER BY name <-> 'n{n}' LIMIT 5",
            "SELECT lo_get(4711)",
        ):
            connection.exec_driver_sql(query).all()


def streams(pool: router.psycopg.ConnectionPool, n: int) -> None:
    """Cursors of psycopg: a stream, copies, and statements composed or in bytes."""
    with pool.connection() as connection, connection.cursor() as cursor:
        for _ in cursor.stream("SELECT * FROM book WHERE id > %s", (n,)):
            pass
        for _ in cursor.stream(sql.SQL("SELECT * FROM {}").format(sql.Identifier("book"))):
            pass
        with cursor.copy("COPY (SELECT * FROM book) TO STDOUT") as copy:
            for _ in copy:
                pass
        with cursor.copy(sql.SQL("COPY book TO STDOUT")) as copy:
            for _ in copy:
                pass
        cursor.execute(b"SELECT count(*) FROM book")
        cursor.execute(sql.SQL("SELECT count(*) FROM author"))


PAGES: dict[str, Callable[[Any, int], None]] = {
    "ORM": orm,
    "raw SQL": raw,
    "bulk texts": bulk,
    "schema_translate_map": tenants,
    "types of extensions": extensions,
    "streams and copies": streams,
}


def main() -> None:
    """Visit each page some times, and print where its statements ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print(f"{'page':24}{'reads':>8}{'on replicas':>14}")
    with Cluster(2) as cluster, doors(cluster) as (engine, pool):
        cluster.wait_caught_up()
        everything = [0, 0]
        for name, page in PAGES.items():
            door = pool if page is streams else engine
            before = ran(door.router)
            for n in range(rounds):
                with router.request_context():
                    page(door, n)
            after = ran(door.router)
            counts = [b - a for a, b in zip(before, after, strict=True)]
            everything = [a + b for a, b in zip(everything, counts, strict=True)]
            tell(name, counts)
        tell("all", everything)


@contextmanager
def doors(cluster: Cluster) -> Iterator[tuple[sa.Engine, router.psycopg.ConnectionPool]]:
    """An engine and a pool over the schema, which know its catalog."""
    cluster.primary.execute(SCHEMA)
    cluster.wait_caught_up()
    replicas = [r.url() for r in cluster.replicas]
    url = sa.make_url(cluster.primary.url()).set(drivername="postgresql+psycopg")
    engine = router.create_engine(url, replicas=replicas)
    pool = router.psycopg.ConnectionPool(
        cluster.primary.url(), replicas=replicas, kwargs={"autocommit": True}
    )
    with closing(pool):
        for each in (engine.router, pool.router):
            each.start()
            while not each.catalog.current.loaded:
                each.refresh()
        yield engine, pool
    engine.dispose()


def ran(routed: Any) -> list[int]:
    """How many statements ran so far, and how many of them on replicas."""
    decisions = {node: sum(n.values()) for node, n in routed.stats()["decisions"].items()}
    primary = routed.snapshot.primary.name
    return [sum(decisions.values()), sum(n for node, n in decisions.items() if node != primary)]


def tell(name: str, counts: list[int]) -> None:
    """One line."""
    print(f"{name:24}{counts[0]:8,}{counts[1] / counts[0]:14.1%}", flush=True)


if __name__ == "__main__":
    main()
