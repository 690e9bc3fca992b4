"""A password of odd characters opens every door, and shows nowhere when it is wrong."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

import router
from router.testing import Cluster
from tests.native.kit import DOORS

PASSWORD = "p@s:s/w%or'd#?&+=,é \"\\$(x)[1]{2}<>|`~^;!*"
TELLING = ("s/w%or", "w%25or", "$(x)", "%24%28x")
SQL = "SELECT inet_server_port()"


def synchronous(driver: str) -> Callable[[str, str], str]:
    def ask(url: str, replica: str) -> str:
        engine = router.create_engine(with_driver(url, driver), [replica])
        try:
            engine.router.start()
            with engine.connect() as connection:
                read = connection.scalar(sa.text(SQL))
            with engine.begin() as connection:
                written = connection.scalar(sa.text(SQL))
            config = engine.router.config
            return f"{read} {written} {engine!r} {engine.router!r} {config!r} {config.explain()}"
        finally:
            engine.dispose()

    return ask


def asynchronous(driver: str) -> Callable[[str, str], str]:
    async def ask(url: str, replica: str) -> str:
        engine = router.create_async_engine(with_driver(url, driver), [replica])
        try:
            async with engine.connect() as connection:
                read = await connection.scalar(sa.text(SQL))
            async with engine.begin() as connection:
                written = await connection.scalar(sa.text(SQL))
            return f"{read} {written} {engine!r} {engine.pool.status()}"
        finally:
            await engine.dispose()

    return lambda url, replica: asyncio.run(ask(url, replica))


def native(way: str) -> Callable[[str, str], str]:
    def ask(url: str, replica: str) -> str:
        door = DOORS[way](url, replicas=[replica])
        try:
            with door.connection() as connection:
                (read,) = door.run(connection, SQL)[0]
                door.run(connection, "CREATE TEMP TABLE t ()")
                (written,) = door.run(connection, SQL)[0]
            return f"{read} {written} {door.pool!r}"
        finally:
            door.close()

    return ask


def with_driver(url: str, driver: str) -> str:
    return url.replace("postgresql:", f"postgresql+{driver}:")


WAYS = {
    **{driver: synchronous(driver) for driver in ("psycopg", "psycopg2", "pg8000")},
    **{f"{driver}_async": asynchronous(driver) for driver in ("psycopg", "asyncpg")},
    **{f"{way} pool": native(way) for way in DOORS},
}


@pytest.fixture(scope="module")
def guarded() -> Any:
    with Cluster(replicas=1, password=PASSWORD) as cluster:
        yield cluster


@pytest.mark.parametrize("way", WAYS)
def test_no_door_shows_a_password(
    guarded: Cluster, way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Percent-encoded in a URL it opens primary and replica; neither reprs, nor the settings
    explained, nor the errors of a wrong one and what is logged, hold any of it."""
    caplog.set_level(logging.DEBUG)
    primary, (replica,) = guarded.primary, guarded.replicas
    address = f"127.0.0.1:{replica.port}"
    said = WAYS[way](primary.url(), address)
    assert said.startswith(f"{replica.port} {primary.port} ")
    wrong = f"postgresql://postgres:{quote('x' + PASSWORD, safe='')}@127.0.0.1:{primary.port}/x"
    with pytest.raises(Exception, match="password authentication failed") as caught:
        WAYS[way](wrong, address)
    said += "".join(traceback.format_exception(caught.value))
    captured = capfd.readouterr()
    said += caplog.text + captured.out + captured.err
    assert not [text for text in TELLING if text in said]
