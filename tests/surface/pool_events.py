"""The pool events of SQLAlchemy that a listener sees, in order, on a plain and on a routed engine.

Instrumentation and connection setup (``connect``, ``checkout``) hang on them.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

import router
from router.testing import Cluster

EVENTS = (
    "first_connect", "connect", "checkout", "reset", "checkin", "invalidate", "soft_invalidate",
    "close", "close_detached", "detach",
)  # fmt: skip

READ = sa.text("SELECT count(*) FROM item")
WRITE = sa.text("INSERT INTO item (name) VALUES ('x')")


def recorded(cluster: Cluster, dbname: str) -> dict[str, str]:
    """The sequence of events of every step, by engine and step.

    Args:
        cluster: at least one replica.
        dbname: a database with the table ``item (name text)``.
    """
    primary = cluster.primary.url(dbname, "psycopg")
    # One, so that no read finds a pool that had none before.
    replicas = [cluster.replicas[0].url(dbname)]
    options = {"replicas": replicas, "probe_interval": 0.2}
    engines: dict[str, tuple[Callable[[], Any], bool]] = {
        "psycopg, plain": (lambda: sa.create_engine(primary), False),
        "psycopg, routed": (lambda: router.create_engine(primary, **options), False),
        "psycopg async, plain": (lambda: create_async_engine(primary).sync_engine, True),
        "psycopg async, routed": (
            lambda: router.create_async_engine(primary, **options).sync_engine,
            True,
        ),
    }
    found = {}
    for name, (make, is_async) in engines.items():
        if is_async:
            with asyncio.Runner() as runner:
                steps = runner.run(greenlet_spawn(_play, make))
        else:
            steps = _play(make)
        found.update({f"{name}: {step}": " ".join(seen) for step, seen in steps.items()})
    return found


def _play(make: Callable[[], Any]) -> dict[str, list[str]]:
    engine = make()
    seen: list[str] = []
    for name in EVENTS:
        sa.event.listen(engine, name, lambda *_, name=name: seen.append(name))
    if hasattr(engine, "router"):
        engine.router.start()
        engine.router.refresh()
    told = {}
    try:
        for i, (step, play) in enumerate(STEPS.items(), 1):
            if engine.dialect.is_async and play is _detach:
                continue  # nobody closes what was detached from an asynchronous pool
            seen.clear()
            with router.request_context():  # no pin: whether a replica has caught up is chance
                play(engine)
            told[f"{i:02} {step}"] = list(seen)
    finally:
        engine.dispose()
    return told


def _first(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(READ).scalar_one()


def _commit(engine: Any) -> None:
    with engine.begin() as connection:
        connection.execute(WRITE)


def _rollback(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(WRITE)
        connection.rollback()


def _invalidate(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(WRITE)
        connection.invalidate()


def _soft_invalidate(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(WRITE)
        connection.connection.invalidate(soft=True)


def _dispose(engine: Any) -> None:
    engine.dispose()


def _detach(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(WRITE)
        connection.detach()


def _read_then_write(engine: Any) -> None:
    with engine.connect() as connection:
        connection.execute(READ).scalar_one()
        connection.execute(WRITE)
        connection.commit()


def _raw(engine: Any) -> None:
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()


STEPS: dict[str, Callable[[Any], None]] = {
    "first read": _first,
    "read": _first,
    "write, commit": _commit,
    "write, rollback": _rollback,
    "write, invalidate": _invalidate,
    "read after invalidate": _first,
    "write, soft invalidate": _soft_invalidate,
    "write after soft invalidate": _commit,
    "dispose": _dispose,
    "read after dispose": _first,
    "detach": _detach,
    "read, write": _read_then_write,
    "raw connection": _raw,
}


def own_cluster() -> Iterator[dict[str, str]]:
    """What a cluster of its own gives: for writing the recording."""
    with Cluster(replicas=1) as cluster:
        cluster.primary.execute("CREATE TABLE item (name text)")
        cluster.wait_caught_up()
        yield recorded(cluster, "postgres")
