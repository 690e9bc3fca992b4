"""The connection that probes go over, at real servers: it connects and fails as psycopg does."""

import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from router.connect.probe_connection import ProbeConnection
from router.polling import Loop, Task
from router.runtime import SYSTEM
from router.testing import Cluster, Proxy
from router.testing.ports import free_port
from tests.conftest import MakeCluster

Do = Callable[[Loop], Coroutine[Any, Any, Any]]


def run(do: Do) -> Any:
    """What `do` returns on a loop of its own."""
    working = SYSTEM.lock(real=True)
    with working:
        loop = SYSTEM.loop(working)
        return loop.run(do(loop))


def error(arguments: dict[str, Any]) -> psycopg.Error:
    """What connecting by `arguments` fails with."""

    async def connect(loop: Loop) -> None:
        (await ProbeConnection.connect(loop, arguments)).close()

    with pytest.raises(psycopg.Error) as failed:
        run(connect)
    return failed.value


def answer(arguments: dict[str, Any], sql: str) -> list[tuple[Any, ...]]:
    """The rows that `sql` gives over a connection by `arguments`."""

    async def ask(loop: Loop) -> list[tuple[Any, ...]]:
        connection = await ProbeConnection.connect(loop, arguments)
        try:
            return await connection.query(sql.encode())
        finally:
            connection.close()

    rows: list[tuple[Any, ...]] = run(ask)
    return rows


@pytest.fixture
def there(cluster: Cluster) -> dict[str, Any]:
    primary = cluster.primary
    return {
        "host": primary.host,
        "port": primary.port,
        "user": "postgres",
        "dbname": "postgres",
        "connect_timeout": 5,
    }


@pytest.fixture(scope="module")
def locked() -> Iterator[dict[str, Any]]:
    """A server that asks for a password."""
    with Cluster(replicas=0, password="open sesame") as cluster:
        primary = cluster.primary
        yield {"host": primary.host, "port": primary.port, "user": "postgres"}


def names(monkeypatch: pytest.MonkeyPatch, **addresses: list[str]) -> None:
    """Let the system's resolver know names that lead to `addresses`."""
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in addresses:
            return [(2, 1, 6, "", (address, 0)) for address in addresses[host]]
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_values_arrive_as_psycopg_gives_them(there: dict[str, Any]) -> None:
    """Of each type that probes and catalogs ask for."""
    sql = "SELECT 1, 'é'::text, true, NULL, 1.5::float8, ARRAY['a'], 'n'::name, 5::oid"
    with psycopg.connect(**there) as plain:
        assert answer(there, sql) == plain.execute(sql.encode()).fetchall()


def test_several_statements_are_one_transaction(there: dict[str, Any]) -> None:
    """A setting local to it holds for the last of them, whose rows are the answer, and is gone
    afterwards; an error in one is the answer, and the next question is a fresh one."""

    async def ask(loop: Loop) -> None:
        connection = await ProbeConnection.connect(loop, there)
        try:
            show = b"SELECT current_setting('lock_timeout')"
            assert await connection.query(b"SET LOCAL lock_timeout = 123;" + show) == [("123ms",)]
            assert await connection.query(show) == [("0",)]
            for failing in (b"SET LOCAL lock_timeout = 123; SELECT 1/0", b"SELECT 1/0; SELECT 1"):
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await connection.query(failing)
            assert await connection.ask(show) == ("0",)
        finally:
            connection.close()
        assert connection.closed

    run(ask)


@pytest.mark.parametrize("wrong", ["port", "dbname", "directory", "option"])
def test_it_fails_as_psycopg_does(there: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    """With the same class and the same words; no SQLSTATE, as libpq tells none."""
    changed: dict[str, dict[str, Any]] = {
        "port": {"port": free_port()},
        "dbname": {"dbname": "nowhere"},
        "directory": {"host": str(tmp_path)},
        "option": {"sslmode": "require"},
    }
    arguments = there | changed[wrong]
    with pytest.raises(psycopg.Error) as expected:
        psycopg.connect(**arguments)
    found = error(arguments)
    assert type(found) is type(expected.value)
    assert str(found) == str(expected.value)
    assert found.sqlstate is None


def test_passwords(
    locked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right one lets in, from the arguments or from libpq's file; a wrong one, and none, fail as
    psycopg does."""
    assert answer(locked | {"password": "open sesame"}, "SELECT 1") == [(1,)]
    for password in ("wrong", None):
        arguments = locked | {"password": password}
        with pytest.raises(psycopg.Error) as expected:
            psycopg.connect(**arguments)
        assert str(error(arguments)) == str(expected.value)
    # libpq looks a password up by the name, not by the address the name led to.
    names(monkeypatch, locked=[locked["host"]])
    file = tmp_path / "pgpass"
    file.write_text("locked:*:*:*:open sesame\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert answer(locked | {"host": "locked"}, "SELECT 1") == [(1,)]


def test_a_client_encoding_of_the_environment_does_no_harm(
    there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the servers say is read in the encoding that it is asked for in."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    assert answer(there, "SELECT 'é'") == [("é",)]


def test_a_deaf_server_has_its_own_time_and_costs_others_none(there: dict[str, Any]) -> None:
    """A connection to it ends after ``connect_timeout``, while one beside it opens and answers."""

    async def ask(loop: Loop) -> float:
        began = loop.time()
        dark = loop.spawn(ProbeConnection.connect(loop, there | deaf))
        await loop.sleep(0.01)
        connection = await ProbeConnection.connect(loop, there)
        assert await connection.ask(b"SELECT 1") == (1,)
        connection.close()
        assert loop.time() - began < 1.5
        await loop.ends(dark)
        with pytest.raises(
            psycopg.errors.ConnectionTimeout, match=r"^connection timeout expired$"
        ):
            dark.result()
        return loop.time() - began

    with Proxy(there["host"], there["port"]) as proxy:
        proxy.deaf()
        deaf = {"host": proxy.host, "port": proxy.port, "connect_timeout": 2}
        assert 2 <= run(ask) < 10


def test_a_slow_login_is_waited_for(there: dict[str, Any]) -> None:
    """Longer than it takes others, if it is within ``connect_timeout``."""
    with Proxy(there["host"], there["port"]) as proxy:
        proxy.delay(0.3)
        slow = there | {"host": proxy.host, "port": proxy.port}
        assert answer(slow, "SELECT 1") == [(1,)]


def test_an_unknown_name_is_told_by_its_name(
    there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In psycopg's words, as long as none of several leads anywhere."""

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for host in ("nowhere", "here,there"):
        found = error(there | {"host": host})
        assert type(found) is psycopg.OperationalError
        last = host.rpartition(",")[2]
        assert str(found) == (
            f"failed to resolve host {last!r}: [Errno -2] Name or service not known"
        )
    address = there["host"]
    assert answer(there | {"host": f"nowhere,{address}"}, "SELECT 1") == [(1,)]


def test_a_look_up_that_hangs_holds_up_nobody(
    there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in a thread of its own, and is given up after ``connect_timeout``."""
    gate = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        assert gate.wait(60)
        raise socket.gaierror(-3, "late")

    async def ask(loop: Loop) -> None:
        arguments = there | {"host": "hangs", "connect_timeout": 2}
        hanging = loop.spawn(ProbeConnection.connect(loop, arguments))
        await loop.sleep(0)
        connection = await ProbeConnection.connect(loop, there)
        assert await connection.ask(b"SELECT 1") == (1,)
        connection.close()
        assert not hanging.done
        await loop.ends(hanging)
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            hanging.result()

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        run(ask)
    finally:
        gate.set()


def test_addresses_are_tried_one_after_the_other(
    there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one name and those of several hosts; when all fail, all are told."""
    address = there["host"]
    names(monkeypatch, several=["127.0.0.9", address], none=["127.0.0.9", "127.0.0.8"])
    assert answer(there | {"host": "several"}, "SELECT 1") == [(1,)]
    assert answer(there | {"host": f"127.0.0.9,{address}"}, "SELECT 1") == [(1,)]
    ports = f"{free_port()},{there['port']}"
    assert answer(there | {"host": "several,several", "port": ports}, "SELECT 1") == [(1,)]
    found = error(there | {"host": "none"})
    assert "Multiple connection attempts failed. All failures were:" in str(found)
    assert str(found).count("- host: 'none', port: ") == 2


def test_a_list_of_ports_that_does_not_fit_is_psycopgs_to_refuse(there: dict[str, Any]) -> None:
    """In its own words."""
    arguments = there | {"host": "localhost,localhost", "port": "1,2,3"}
    assert "could not match 3 port numbers to 2 hosts" in str(error(arguments))


def sleeping(cluster: Cluster, mark: str) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
    sql += " AND state = 'active'"
    return int(cluster.primary.execute(sql, [f"%{mark}%"])[0][0])


@pytest.mark.parametrize("how", ["cancel", "hang up"])
def test_a_question_can_be_given_up(cluster: Cluster, there: dict[str, Any], how: str) -> None:
    """At once, whatever the server does: its task ends, and with it the connection."""
    mark = f"given up by {how}"

    async def ask(loop: Loop) -> None:
        connection = await ProbeConnection.connect(loop, there)
        asking: Task[Any] = loop.spawn(connection.ask(f"SELECT pg_sleep(60), '{mark}'".encode()))
        while not await loop.beside(lambda: sleeping(cluster, mark), "looks"):
            await loop.sleep(0.02)
        assert not connection.unread
        assert connection.heard <= loop.time()
        if how == "cancel":
            asking.cancel()
            assert asking.cancelled
        else:
            connection.hang_up()
            assert await loop.ends(asking, within=10)
            with pytest.raises(psycopg.OperationalError):
                asking.result()
            assert connection.closed
        connection.close()
        connection.hang_up()  # does nothing more

    run(ask)
    cluster.primary.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE %s "
        "AND pid <> pg_backend_pid()",
        [f"%{mark}%"],
    )


def test_an_answer_that_nobody_has_read_shows(there: dict[str, Any]) -> None:
    """So that a process too busy to look takes no server to be silent."""

    async def ask(loop: Loop) -> None:
        connection = await ProbeConnection.connect(loop, there)
        asking = loop.spawn(connection.ask(b"SELECT 1"))
        await loop.sleep(0)
        while not connection.unread:  # the loop does not run meanwhile
            os.sched_yield()
        assert await loop.ends(asking, within=10)
        connection.close()

    run(ask)


def test_a_server_that_dies_ends_the_question(
    there: dict[str, Any], make_cluster: MakeCluster
) -> None:
    """With psycopg's class for a lost connection."""
    primary = make_cluster(replicas=0).primary
    arguments = there | {"host": primary.host, "port": primary.port}

    async def ask(loop: Loop) -> None:
        connection = await ProbeConnection.connect(loop, arguments)
        asking = loop.spawn(connection.ask(b"SELECT pg_sleep(60)"))
        await loop.sleep(0)
        primary.kill()
        assert await loop.ends(asking, within=20)
        with pytest.raises(psycopg.OperationalError):
            asking.result()
        assert connection.closed
        connection.close()

    run(ask)
