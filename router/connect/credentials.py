"""What users give a function for, so that it is made anew for each connection: an IAM token, a
password that Vault rotates. The monitor needs it in threads of its own."""

import asyncio
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable
from typing import Any

from router.greenlets import await_only, in_greenlet

WAIT = 30.0
"""Seconds that a thread waits for what an event loop makes."""

_OF_LIBPQ = ("user", "dbname", "host", "hostaddr", "port", "sslmode", "sslrootcert", "sslcert",
             "sslkey")  # fmt: skip


def made(source: Any, loop: asyncio.AbstractEventLoop | None = None) -> Any:
    """`source`, or what it returns now where it is a function; any thread. `loop` is as `awaited`
    has it. Raises what the function raises."""
    found = source() if callable(source) else source
    return awaited(found, loop) if isawaitable(found) else found


def awaited(found: Awaitable[Any], loop: asyncio.AbstractEventLoop | None = None) -> Any:
    """What `found` gives: awaited where the caller may await; else on `loop`, that of the user's
    connections, to which what he awaits may belong; else on a loop of its own."""
    if in_greenlet():
        return await_only(found)
    if asyncio._get_running_loop() is not None:
        with ThreadPoolExecutor(1) as apart:
            return apart.submit(asyncio.run, _await(found)).result(WAIT)
    if loop is not None and loop.is_running():
        return asyncio.run_coroutine_threadsafe(_await(found), loop).result(WAIT)
    return asyncio.run(_await(found))


async def _await(found: Awaitable[Any]) -> Any:
    return await found


def of_libpq(parameters: Mapping[str, Any], password: str) -> dict[str, Any]:
    """By which of libpq's `parameters`, and by what `password`, a connection was made."""
    found = {key: parameters[key] for key in _OF_LIBPQ if parameters.get(key)}
    return {**found, "password": password} if password else found


def of_psycopg(connection: Any) -> dict[str, Any]:
    """The same of a `connection` of psycopg, for threads or for an event loop."""
    return of_libpq(connection.info.get_parameters(), connection.info.password)


def of_asyncpg(connection: Any) -> dict[str, Any]:
    """The same of an asyncpg `connection`; by its own names."""
    asked, address = connection._params, connection._addr
    found = {"user": asked.user, "dbname": asked.database, "password": asked.password}
    if isinstance(address, tuple):  # a socket's path otherwise
        found |= {"host": address[0], "port": address[1]}
    return {key: value for key, value in found.items() if value}
