"""Asks each server what `router.doctor` wants to know, all of them at once."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import psycopg

from router.config.config import Config
from router.config.server import Server
from router.connect.hangup_connection import HangUpConnection
from router.doctor import facts
from router.doctor import pgbouncer_console as console
from router.doctor.facts import Console, Facts, Pooler
from router.messages import one_line
from router.sql.catalog import Catalog

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds each step with a server may take."""

TURNS = 5
"""How often two connections in turn are asked which server process answers."""


def survey(config: Config, servers: Iterable[tuple[str, Server]]) -> tuple[Facts, ...]:
    """Ask `servers`, each by its name and as `config` connects, and wait for all; the Facts of one
    that fails say why. May be called where an event loop runs."""

    async def ask_all() -> tuple[Facts, ...]:
        return tuple(await asyncio.gather(*(_ask(config, *server) for server in servers)))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask_all()).result()


async def _ask(config: Config, name: str, server: Server) -> Facts:
    address = f"{server.host}:{server.port}"
    arguments = {"application_name": "pg-router doctor", **config.libpq(), **server.connect_args()}
    try:
        connection = await _within(_connect(arguments))
        try:
            return await _facts(name, address, arguments, connection, config.read_functions)
        finally:
            connection.hang_up()
            await connection.close()
    except psycopg.Error as error:
        # Of a login libpq tells no SQLSTATE; a server in another language is just unreachable.
        asked = error.pgconn is not None and error.pgconn.needs_password
        denied = bool(asked) or "authentication failed" in str(error)
        return Facts(node=name, address=address, problem=one_line(error), denied=denied)
    except TimeoutError:
        return Facts(node=name, address=address, problem=f"no answer for {PATIENCE:g} s")


async def _facts(
    name: str,
    address: str,
    arguments: Mapping[str, Any],
    connection: HangUpConnection,
    read: Iterable[str],
) -> Facts:
    sent, began = time.time(), time.perf_counter()
    (row,) = await _rows(connection, facts.FACTS_SQL)
    took = time.perf_counter() - began
    pid, standby, clock, started, database = row
    settings = dict(await _rows(connection, facts.SETTINGS_SQL))
    found: dict[str, Any] = {}
    # Not every user may know these, nor has every server them.
    with suppress(psycopg.Error):
        ((found["system_id"],),) = await _rows(connection, facts.SYSTEM_SQL)
    if standby:
        with suppress(psycopg.Error):
            ((paused, streaming, conflicts),) = await _rows(connection, facts.STANDBY_SQL)
            found |= {"paused": paused, "streaming": streaming, "conflicts": conflicts or 0}
    try:
        rows = {part: await _rows(connection, sql) for part, sql in Catalog.QUERIES.items()}
        if not standby:  # which has the same catalog
            found["unasked"] = tuple(Catalog.from_rows(rows, read=read).unasked())
    except psycopg.Error as error:
        found["catalog_problem"] = one_line(error)
    # A server tells the number of its process when a connection is opened. A pooler tells a number
    # of its own, for it has to know whose query a cancel request means.
    if connection.info.backend_pid != pid:
        told = await _console(arguments)
        mode = (told and _told(told, arguments)) or await _mode(arguments, connection)
        found["pooler"] = Pooler(mode, told)
    return Facts(
        node=name,
        address=address,
        standby=standby,
        settings=settings,
        database=database,
        started=started,
        clock_offset=clock - (sent + took / 2),
        clock_error=took / 2,
        encrypted=_encrypted(connection),
        **found,
    )


def _told(told: Console, arguments: Mapping[str, Any]) -> str:
    """How it says that it pools the database asked, empty where it does not say."""
    modes = {row.get("database"): row.get("pool_mode", "") for row in told.pools}
    return modes.get(arguments.get("dbname")) or ""


async def _mode(arguments: Mapping[str, Any], first: HangUpConnection) -> str:
    """How the pooler in between pools, found by trying.

    Pooled by session, two open connections never have the same server process, and each keeps its
    own. A transaction is refused where pooling is by statement.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            second = await _connect(arguments)
            try:
                seen: tuple[set[int], set[int]] = (set(), set())
                for _ in range(TURNS):
                    for connection, pids in zip((first, second), seen, strict=True):
                        ((pid,),) = await _rows(connection, "SELECT pg_catalog.pg_backend_pid()")
                        pids.add(pid)
                shared = bool(seen[0] & seen[1]) or len(seen[0]) + len(seen[1]) > 2
            finally:
                second.hang_up()
                await second.close()
    except (psycopg.Error, TimeoutError):
        return "session"  # the second one waits for the first to go
    if not shared:
        return "session"
    try:
        await first.execute("BEGIN")
        await first.execute("ROLLBACK")
    except psycopg.Error:
        return "statement"
    return "transaction"


async def _console(arguments: Mapping[str, Any]) -> Console | None:
    try:
        return await asyncio.to_thread(console.read, arguments)
    except (psycopg.Error, LookupError, ValueError):
        return None  # another pooler, or it does not let this user ask


async def _connect(arguments: Mapping[str, Any]) -> HangUpConnection:
    # Prepared statements would stay behind where a PgBouncer pools.
    return await HangUpConnection.connect(**arguments, autocommit=True, prepare_threshold=None)


async def _rows(connection: HangUpConnection, sql: str) -> list[tuple[Any, ...]]:
    async def ask() -> list[tuple[Any, ...]]:
        return await (await connection.execute(sql.encode())).fetchall()

    return await _within(ask())


async def _within(doing: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await doing


def _encrypted(connection: HangUpConnection) -> bool | None:
    host = connection.info.host
    if host.startswith(("/", "@", "127.")) or host in ("localhost", "::1"):
        return None
    return bool(connection.pgconn.ssl_in_use)
