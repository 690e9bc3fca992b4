"""What goes over the wire, counted by libpq itself: its trace of every protocol message."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.sqlalchemy.kit import PORT, Routed, insert


class Wire:
    """The messages of every connection an engine opens, as libpq writes them down."""

    def __init__(self, engine: sa.Engine, directory: Path) -> None:
        self._directory = directory
        self._traced: list[tuple[Any, IO[bytes]]] = []
        sa.event.listen(engine, "connect", self._connected)

    def _connected(self, connection: Any, _record: Any) -> None:
        file = (self._directory / str(len(self._traced))).open("w+b")
        connection.pgconn.trace(file.fileno())
        self._traced.append((connection, file))

    def round_trips(self, work: Callable[[], object]) -> int:
        """How often `work` waited for a server: each wait ends with ReadyForQuery."""
        before = self._count()
        work()
        return self._count() - before

    def _count(self) -> int:
        found = 0
        for connection, file in self._traced:
            connection.pgconn.untrace()  # which flushes
            found += Path(file.name).read_bytes().count(b"ReadyForQuery")
            connection.pgconn.trace(file.fileno())
        return found

    def close(self) -> None:
        for connection, file in self._traced:
            connection.pgconn.untrace()
            file.close()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Callable[[sa.Engine], Wire]]:
    """Listens to an engine."""
    made: list[Wire] = []

    def listen(engine: sa.Engine) -> Wire:
        directory = tmp_path / str(len(made))
        directory.mkdir()
        made.append(Wire(engine, directory))
        return made[-1]

    yield listen
    for each in made:
        each.close()


def begun(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        insert(connection)


def autobegun(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        insert(connection)
        connection.commit()


def in_session(engine: sa.Engine) -> None:
    with Session(engine) as session:
        insert(session)
        session.commit()


def in_autocommit(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        insert(connection)


def reading(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(PORT)


@pytest.mark.parametrize("work", [begun, autobegun, in_session, in_autocommit])
def test_a_write_costs_no_round_trip_more(
    routed: Routed, work: Callable[[sa.Engine], None], wire: Callable[[sa.Engine], Wire]
) -> None:
    """The write path waits for the server as often as plain SQLAlchemy does, or less; once more
    with pin_lsn="commit"."""
    url = routed.cluster.primary.url(routed.dbname, "psycopg")
    plain = sa.create_engine(url)
    counts = []
    for engine in (plain, routed.another(), routed.another(pin_lsn="commit")):
        listening = wire(engine)
        work(engine)  # connections are made, and met
        work(engine)
        counts.append({listening.round_trips(partial(work, engine)) for _ in range(3)})
    plain.dispose()
    (expected,), (ours,), (asked,) = counts
    assert 0 < ours <= expected
    assert asked == ours + 1


def test_a_read_takes_one_round_trip_in_place_of_three(
    routed: Routed, wire: Callable[[sa.Engine], Wire]
) -> None:
    """A read outside an explicit transaction needs neither BEGIN nor ROLLBACK."""
    plain = sa.create_engine(routed.cluster.primary.url(routed.dbname, "psycopg"))
    counts = []
    for engine in (plain, routed.another()):
        listening = wire(engine)
        reading(engine)
        reading(engine)
        counts.append(listening.round_trips(partial(reading, engine)))
    plain.dispose()
    assert counts == [3, 1]
