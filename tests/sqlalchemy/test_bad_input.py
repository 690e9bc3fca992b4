"""Bad input gets one line that names the key and the cure, and never a password."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.errors import ConfigError, PrimaryUnavailable
from router.sqlalchemy import RoutedEngine
from router.testing import Cluster
from tests.sqlalchemy.kit import PORT

SECRET = "s3cr3t-p4ss"
URL = f"postgresql+psycopg://app:{SECRET}@127.0.0.1:1/db"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blacklist_durration": 3}, r"blacklist_durration.*did you mean 'blacklist_duration'"),
        ({"router_pin_durtion": 3}, r"pin_durtion.*did you mean 'pin_duration'"),
        ({"pin_duration": "soon"}, r"pin_duration: 'soon' is not a number"),
        ({"probe_interval": -1}, r"probe_interval: -1 is negative"),
        ({"consistency": "strong"}, r"consistency: 'strong' is none of lsn, time, off"),
        ({"fallback": "replica"}, r"fallback: 'replica' is none of primary, error"),
        ({"balance": "fastest"}, r"balance: 'fastest' is none of weighted, random, round_robin"),
        ({"reads_in_transaction": "maybe"}, r"reads_in_transaction: 'maybe' is neither"),
        ({"rule": "SELECT"}, r"rule: 'SELECT' is not callable"),
        ({"replicas": 5}, r"replicas: expected a list"),
        ({"replicas": [5]}, r"replicas\[0\]: expected a URL"),
        ({"replicas": [{"port": 5433}]}, r"replicas\[0\]: no host: add 'host' or 'url'"),
        ({"replicas": [":5433"]}, r"replicas\[0\].*names no host"),
        ({"replicas": [f"postgresql://app:{SECRET}@/db"]}, r"replicas\[0\].*names no host"),
        (
            {"replicas": [f"postgresql+psycopg2://app:{SECRET}@other/db"]},
            r"replicas\[0\]: driver 'psycopg2' differs from the primary's 'psycopg'.*leave",
        ),
        ({"replicas": [f"mysql://app:{SECRET}@other/db"]}, r"replicas\[0\].*not a PostgreSQL URL"),
        ({"replicas": [{"host": "a", "wieght": 2}]}, r"'wieght'.*did you mean 'weight'"),
        ({"replicas": ["a:b"]}, r"replicas\[0\]: the text is no port"),
        (
            {"replicas": [{"host": "a", "name": "r"}, {"host": "b", "name": "r"}]},
            r"replicas\[1\]\.name: 'r' is taken.*name of its own",
        ),
        ({"replicas": [{"host": "a", "name": "primary"}]}, r"replicas\[0\]\.name: 'primary'"),
        ({"creator": lambda: None, "replicas": ["a"]}, r"creator: .*do_connect"),
        ({"creator": "connect"}, r"creator: expected a function that connects, not 'connect'"),
        ({"poolclass": sa.NullPool, "pool_size": 3, "replicas": ["a"]}, r"pool_size: NullPool"),
    ],
)
def test_bad_options_are_refused_when_the_engine_is_made(
    options: dict[str, Any], message: str
) -> None:
    """Each mistake is a one-line ConfigError that names the key and the cure."""
    with pytest.raises(ConfigError, match=message) as raised:
        router.create_engine(URL, **options)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value)


def test_the_plugin_is_applied_once() -> None:
    """Our function takes a URL and options that name the plugin already; SQLAlchemy's own, given
    it twice, is told so."""
    url = URL + "?plugin=router&replica=db2"
    engine = router.create_engine(url, plugins=["router"], replicas=["db3"])
    assert [node.host for node in engine.router.snapshot.nodes][1:] == ["db3"]
    with pytest.raises(ConfigError, match="plugins: 'router' is named twice"):
        sa.create_engine(url, plugins=["router"])


def test_an_unsupported_driver_is_refused_when_the_engine_is_made() -> None:
    """A driver the router does not know is named together with those it does."""
    with pytest.raises(ConfigError, match=r"mysql.*not a PostgreSQL URL"):
        router.create_engine(f"mysql+pymysql://app:{SECRET}@h/db", replicas=["a"])


def test_the_password_is_in_no_repr() -> None:
    """Engine, pool, Router and Config never show the password."""
    engine = router.create_engine(URL, replicas=[f"postgresql://app:{SECRET}2@h/db"])
    shown = [repr(x) for x in (engine, engine.pool, engine.router, engine.router.config)]
    assert not [text for text in shown if SECRET in text]


def test_an_unreachable_cluster_is_named_when_first_connected_to(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """With nobody at any address connect() says so in one line, as both kinds of error; no log
    line holds the password."""
    caplog.set_level(logging.DEBUG)
    engine = router.create_engine(URL, replicas=[f"127.0.0.1:{_closed_port(cluster)}"])
    try:
        with pytest.raises(PrimaryUnavailable) as raised:
            engine.connect()
        with pytest.raises(sa.exc.OperationalError):
            engine.connect()
    finally:
        engine.dispose()
    message = str(raised.value)
    assert "primary (127.0.0.1:1)" in message
    assert "url" in message or "has not answered" in message
    for text in (message, caplog.text, "".join(str(r.__dict__) for r in caplog.records)):
        assert SECRET not in text


def test_an_unreachable_primary_is_named_by_the_first_write(
    cluster: Cluster, engines: list[RoutedEngine]
) -> None:
    """With only the primary away reads work from the start, and a write names the primary."""
    away = f"postgresql+psycopg://postgres:{SECRET}@127.0.0.1:{_closed_port(cluster)}/postgres"
    engine = router.create_engine(away, replicas=[r.url() for r in cluster.replicas])
    engines.append(engine)
    with engine.connect() as connection:
        assert cluster.server_at(connection.execute(PORT).scalar_one()) in cluster.replicas
        with pytest.raises(PrimaryUnavailable, match=r"primary \(127\.0\.0\.1:\d+\)") as raised:
            connection.execute(sa.text("DELETE FROM item"))
        connection.rollback()
        assert SECRET not in str(raised.value)
        assert cluster.server_at(connection.execute(PORT).scalar_one()) in cluster.replicas


def _closed_port(cluster: Cluster) -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def engines() -> Iterator[list[RoutedEngine]]:
    """Engines appended here are disposed of when the test ends."""
    made: list[RoutedEngine] = []
    yield made
    for engine in made:
        engine.dispose()


def test_a_replica_that_is_not_in_recovery_is_named(
    cluster: Cluster, engines: list[RoutedEngine]
) -> None:
    """A configured replica that is a primary is refused at the first connect(), by its key."""
    url = cluster.primary.url()
    engine = router.create_engine(url, replicas=[cluster.replicas[0].url(), url])
    engines.append(engine)
    message = r"^replicas\[1\]: replica2 .*not in recovery.*leave"
    with pytest.raises(ConfigError, match=message):
        engine.connect()


def test_a_replica_of_another_cluster_is_named(
    cluster: Cluster, engines: list[RoutedEngine]
) -> None:
    """A configured replica with another system identifier is refused by its key."""
    with Cluster(replicas=1) as other:
        engine = router.create_engine(cluster.primary.url(), replicas=[other.replicas[0].url()])
        engines.append(engine)
        message = r"^replicas\[0\]: .*another cluster"
        with pytest.raises(ConfigError, match=message):
            engine.connect()
        engine.dispose()
