"""Settings made by set_config(), by the drivers' own pools: no node lacks them."""

import asyncio
import io
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

import router
from router import request_context
from router.errors import ReplicaWriteRefused
from tests.native.conftest import EVERY_WAY
from tests.native.kit import Native

pytestmark = pytest.mark.once  # it is about the server, not about Python

SEEN = "SELECT inet_server_port(), current_setting('app.x', true)"
PSYCOPG = pytest.mark.doors("psycopg", "psycopg_async")

# By door: a set_config whose name and is_local are parameters.
BOUND = {True: "SELECT set_config($1, $2, $3)", False: "SELECT set_config(%s, %s, %s)"}


def run(native: Native, connection: Any, sql: str, *args: Any) -> None:
    """A statement with parameters, as the driver takes them."""
    if native.door.asynchronous:
        own = args if type(native.door).__name__ == "Asyncpg" else (args,) if args else ()
        native.door.loop(connection.execute(sql, *own))
    else:
        connection.execute(sql, args or None)


def by_parameters(native: Native) -> str:
    return BOUND[type(native.door).__name__ == "Asyncpg"]


def seen(native: Native, connection: Any) -> dict[str, str | None]:
    """The value of app.x as a read sees it, and as one on the primary does, by role."""
    ((port, there),) = native.door.run(connection, SEEN)
    with router.using_primary():
        ((at_primary, here),) = native.door.run(connection, SEEN)
    assert at_primary == native.cluster.primary.port
    return {"primary" if port == at_primary else "replica": there, "on the primary": here}


EVERYWHERE = {"replica": "7", "on the primary": "7"}
BOUND_TO_IT = {"primary": "7", "on the primary": "7"}


def test_is_local_as_a_parameter(native: Native) -> None:
    """With False it is seen on every node, and reads go on on the replicas."""
    with request_context(), native.door.connection() as connection:
        run(native, connection, by_parameters(native), "app.x", "7", False)
        assert seen(native, connection) == EVERYWHERE
    with request_context(), native.door.connection() as connection:
        assert seen(native, connection)["replica"] in (None, "")


@EVERY_WAY
def test_a_local_one_binds_nothing(native: Native) -> None:
    """With True it ends with its transaction, and what follows goes to a replica."""
    door = native.door
    with request_context(), door.connection() as connection:
        with door.transaction(connection):
            run(native, connection, by_parameters(native), "app.x", "7", True)
            assert seen(native, connection) == BOUND_TO_IT  # an explicit transaction
        native.settle()
        assert native.served(connection) == "replica"
        with door.transaction(connection, read_only=True):
            run(native, connection, by_parameters(native), "app.x", "7", True)
            ((port, value),) = door.run(connection, SEEN)
            assert value == "7"
            assert port != native.cluster.primary.port
        assert seen(native, connection)["replica"] in (None, "")


def test_a_computed_value_is_what_it_gave(native: Native) -> None:
    """It is not computed again on the node that is taken later."""
    door = native.door
    with request_context(), door.connection() as connection:
        sql = "SELECT set_config('app.x', statement_timestamp()::text || '%:''\\', false)"
        door.run(connection, sql)
        first, second = seen(native, connection), seen(native, connection)
        assert set(first) == {"replica", "on the primary"}
        assert len({*first.values(), *second.values()}) == 1
        assert str(first["replica"]).endswith("%:'\\")
        door.run(connection, "SET app.y = '1'")
        door.run(connection, "SET app.y FROM CURRENT")
        native.settle()
        assert seen(native, connection) == first


def test_pg_settings_binds(native: Native) -> None:
    """An UPDATE of it sets."""
    ask = "SELECT inet_server_port(), current_setting('statement_timeout')"
    for sql in (
        "UPDATE pg_settings SET setting = '7000' WHERE name = 'statement_timeout'",
        "EXPLAIN ANALYZE UPDATE pg_settings SET setting = '7000' WHERE name = 'statement_timeout'",
    ):
        with request_context(), native.door.connection() as connection:
            native.door.run(connection, "SET statement_timeout = '6s'")
            native.door.run(connection, sql)
            native.settle()
            assert native.door.run(connection, ask) == [(native.cluster.primary.port, "7s")]


def test_several_sets_of_parameters(native: Native) -> None:
    """As executemany sends them: the last one is in force on every node."""
    door, sql = native.door, by_parameters(native)
    sets = [("app.x", str(n), False) for n in range(8)]
    for given in (sets, iter(sets)):
        with request_context(), door.connection() as connection:
            if type(door).__name__ == "Asyncpg":
                door.loop(connection.executemany(sql, given))
            elif door.asynchronous:
                door.loop(connection.cursor().executemany(sql, given))
            else:
                connection.cursor().executemany(sql, given)
            assert seen(native, connection) == EVERYWHERE
            assert set(seen(native, connection).values()) == {"7"}


def test_parameters_are_kept_as_they_were(native: Native) -> None:
    """The caller may change the list he gave."""
    if type(native.door).__name__ == "Asyncpg":
        return
    with request_context(), native.door.connection() as connection:
        given = ["app.x", "7", False]
        if native.door.asynchronous:
            native.door.loop(connection.execute(BOUND[False], given))
        else:
            connection.execute(BOUND[False], given)
        given[1] = "8"
        assert seen(native, connection) == EVERYWHERE


# -- rows that come one by one --------------------------------------------------------------------


def _psycopg(way: str, sql: str) -> Callable[[Any], None]:
    def do(connection: Any) -> None:
        cursor = connection.cursor("named") if way == "named" else connection.cursor()
        with connection.transaction() if way == "named" else ExitStack():
            if way == "copy":
                with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
                    list(copy)
            elif way == "named":
                cursor.execute(sql).fetchall()
                cursor.close()
            else:
                rows = cursor.stream(sql)
                next(rows)
                rows.close() if way == "left" else list(rows)

    return do


def _psycopg_async(way: str, sql: str) -> Callable[[Any], Any]:
    async def do(connection: Any) -> None:
        cursor = connection.cursor("named") if way == "named" else connection.cursor()
        if way == "copy":
            async with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
                async for _ in copy:
                    pass
        elif way == "named":
            async with connection.transaction():
                await (await cursor.execute(sql)).fetchall()
                await cursor.close()
        else:
            rows = cursor.stream(sql)
            await anext(rows)
            if way == "left":
                await rows.aclose()
            else:
                async for _ in rows:
                    pass

    return do


def _asyncpg(way: str, sql: str) -> Callable[[Any], Any]:
    async def do(connection: Any) -> None:
        if way == "copy":

            async def forget(data: bytes) -> None: ...

            await connection.copy_from_query(sql, output=forget)
        elif way == "prepare":
            await (await connection.prepare(sql)).fetch()
        else:
            async with connection.transaction():
                if way == "cursor":
                    await (await connection.cursor(sql)).fetch(5)
                else:
                    async for _ in connection.cursor(sql):
                        pass

    return do


WAYS = [
    *(pytest.param(w, marks=PSYCOPG, id=w) for w in ("stream", "left", "copy", "named")),
    *(
        pytest.param(w, marks=pytest.mark.doors("asyncpg"), id=f"asyncpg-{w}")
        for w in ("copy", "prepare", "cursor", "iterated")
    ),
]
MAKE = {"Psycopg": _psycopg, "PsycopgAsync": _psycopg_async, "Asyncpg": _asyncpg}


def _check(native: Native, way: str, value: str) -> None:
    with request_context(), native.door.connection() as connection:
        native.door.run(connection, SEEN)  # a replica is held
        do = MAKE[type(native.door).__name__](way, f"SELECT set_config('app.x', {value}, false)")
        done = do(connection)
        if asyncio.iscoroutine(done):
            native.door.loop(done)
        found = seen(native, connection)
        assert None not in found.values()
        assert len(set(found.values())) == 1, found
        if value == "'7'":
            assert set(found.values()) == {"7"}
        native.door.run(connection, "INSERT INTO item (name) VALUES (current_setting('app.x'))")
        assert set(seen(native, connection).values()) == set(found.values())
    if value == "'7'" and way != "copy":
        with request_context(), native.door.connection() as connection, router.using_primary():
            ((_, value_left),) = native.door.run(connection, SEEN)
            assert value_left in (None, "")


@PSYCOPG
@pytest.mark.parametrize("value", ["'7'", "clock_timestamp()::text", "now()::text"])
@pytest.mark.parametrize("rows", ["stream", "left", "copy", "named"])
def test_a_setting_made_row_by_row_is_not_lost(native: Native, rows: str, value: str) -> None:
    """By stream(), read to its end or left, by copy() and by a server-side cursor."""
    _check(native, rows, value)


@pytest.mark.doors("asyncpg")
@pytest.mark.parametrize("value", ["'7'", "clock_timestamp()::text", "now()::text"])
@pytest.mark.parametrize("rows", ["copy", "prepare", "cursor", "iterated"])
def test_asyncpgs_other_ways_lose_no_setting(native: Native, rows: str, value: str) -> None:
    """By copy_from_query, a prepared statement and cursors."""
    _check(native, rows, value)


@PSYCOPG
def test_a_statement_between_two_rows_sees_the_setting(native: Native) -> None:
    """As long as rows come, the checkout is bound already."""
    sql = "SELECT set_config('app.x', '7', false)"
    with request_context(), native.door.connection() as connection:
        cursor = connection.cursor()
        if native.door.asynchronous:

            async def go() -> None:
                async for _ in cursor.stream(sql):
                    assert connection.routed.checkout.bound

            native.door.loop(go())
        else:
            for _ in cursor.stream(sql):
                assert connection.checkout.bound
        assert seen(native, connection) == BOUND_TO_IT


@PSYCOPG
def test_a_copy_that_its_caller_leaves_has_set(native: Native) -> None:
    """An exception of the caller's own within the block does not have it forgotten."""
    sql = "COPY (SELECT set_config('app.x', '7', false)) TO STDOUT"

    class Own(Exception):
        """The caller's."""

    with request_context(), native.door.connection() as connection:
        if native.door.asynchronous:

            async def go() -> None:
                async with connection.cursor().copy(sql) as copy:
                    await copy.read()
                    raise Own

            with pytest.raises(Own):
                native.door.loop(go())
            assert connection.routed.checkout.bound
        else:

            def leave() -> None:
                with connection.cursor().copy(sql) as copy:
                    copy.read()
                    raise Own

            with pytest.raises(Own):
                leave()
            assert connection.checkout.bound


@pytest.mark.doors("asyncpg")
def test_what_is_prepared_on_a_replica_is_journaled(native: Native) -> None:
    """In a read-only transaction: what it sets for the session is seen on the primary, too; its
    cursor, which nobody sees run, is refused."""
    door = native.door

    async def go(connection: Any) -> None:
        statement = await connection.prepare("SELECT set_config('app.x', $1, false)")
        await statement.fetchval("7")
        with pytest.raises(ReplicaWriteRefused):
            statement.cursor("7")

    with request_context(), door.connection() as connection:
        with door.transaction(connection, read_only=True):
            assert native.served(connection) == "replica"
            door.loop(go(connection))
        assert seen(native, connection) == EVERYWHERE
    with request_context(), door.connection() as connection:
        assert seen(native, connection)["replica"] in (None, "")


@pytest.mark.doors("asyncpg")
def test_copy_from_query_looks_at_its_arguments(native: Native) -> None:
    """As any statement."""
    door = native.door

    async def forget(data: bytes) -> None: ...

    with request_context(), door.connection() as connection:
        sql = "SELECT set_config($1, $2, $3)"
        door.loop(connection.copy_from_query(sql, "app.x", "7", False, output=forget))
        assert seen(native, connection) == EVERYWHERE


@PSYCOPG
def test_stream_and_copy_of_a_read_are_routed(database: Any, make_pool: Any) -> None:
    """They run on a replica. What a replica refuses runs on the primary, for nothing of it was
    delivered."""
    database.execute(
        "CREATE FUNCTION add_item() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO item (name) VALUES ('a') RETURNING inet_server_port()::text$$"
    )
    database.cluster.wait_caught_up()
    door = make_pool(read_functions=["add_item"])
    primary = str(database.cluster.primary.port)

    def ports(connection: Any, sql: str) -> list[str]:
        cursor = connection.cursor()
        if not door.asynchronous:
            with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
                copied = [row[0] for row in copy.rows()]
            return [*copied, *(str(row[0]) for row in cursor.stream(sql))]

        async def go() -> list[str]:
            async with cursor.copy(f"COPY ({sql}) TO STDOUT") as copy:
                copied = [row[0] async for row in copy.rows()]
            return [*copied, *[str(row[0]) async for row in cursor.stream(sql)]]

        found: list[str] = door.loop(go())
        return found

    with request_context(), door.connection() as connection:
        assert primary not in ports(connection, "SELECT inet_server_port()")
        assert ports(connection, "SELECT add_item()") == [primary] * 2
        assert ports(connection, "SELECT add_item()") == [primary] * 2
    assert database.execute("SELECT count(*) FROM item") == [(4,)]


@pytest.mark.doors("asyncpg")
def test_a_copy_that_a_replica_refused_runs_on_the_primary(database: Any, make_pool: Any) -> None:
    """At once, for its output has taken nothing, and each time from then on."""
    database.execute(
        "CREATE FUNCTION add_item() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO item (name) VALUES ('a') RETURNING inet_server_port()::text$$"
    )
    database.cluster.wait_caught_up()
    door = make_pool(read_functions=["add_item"])
    primary = str(database.cluster.primary.port)
    for _ in range(2):
        taken = io.BytesIO()
        with request_context(), door.connection() as connection:
            door.loop(connection.copy_from_query("SELECT add_item()", output=taken))
        assert taken.getvalue().decode().strip() == primary


def test_a_setting_that_a_replica_refused_is_not_lost(database: Any, make_pool: Any) -> None:
    """It is made on the primary, where the checkout stays; and so is it the next time."""
    database.execute(
        "CREATE FUNCTION add_item() RETURNS text LANGUAGE sql AS "
        "$$INSERT INTO item (name) VALUES ('a') RETURNING '7'$$"
    )
    database.cluster.wait_caught_up()
    door = make_pool(read_functions=["add_item"])
    for _ in range(2):
        with request_context(), door.connection() as connection:
            door.run(connection, "SELECT set_config('app.x', add_item(), false)")
            assert door.run(connection, SEEN) == [(database.cluster.primary.port, "7")]


@pytest.mark.doors("asyncpg")
def test_fetchmany_sets_for_every_node(native: Native) -> None:
    """As executemany does."""
    sets = [("app.x", str(n), False) for n in range(8)]
    with request_context(), native.door.connection() as connection:
        native.door.loop(connection.fetchmany(BOUND[True], sets))
        assert seen(native, connection) == EVERYWHERE
