"""Servers that went away and came back while nobody was using them."""

from typing import Any

import sqlalchemy as sa

import router
from router.sqlalchemy import RoutedEngine
from router.testing import Server
from tests.conftest import MakeCluster
from tests.sqlalchemy.kit import PORT


def restart(server: Server, engine: RoutedEngine) -> None:
    """Crash and start again, each noticed by the probes."""
    server.kill()
    engine.router.refresh()
    engine.router.refresh()
    server.start()
    engine.router.refresh()


def test_an_idle_restart_is_told_and_costs_no_statement(make_cluster: MakeCluster) -> None:
    """Pooled connections a restart broke are replaced unseen: no read blacklists the node for
    them, no write fails on them, and both endings and beginnings of the outage are told."""
    cluster = make_cluster(1)
    primary, replica = cluster.primary, cluster.replicas[0]
    primary.execute("create table item (id serial)")
    cluster.wait_caught_up()
    # Probes only when asked for, so that none of them comes in between.
    engine = router.create_engine(primary.url(), [replica.url()], probe_interval=60)
    told: list[tuple[str, Any]] = []
    engine.router.telemetry.hooks.append(lambda name, fields: told.append((name, fields["node"])))
    try:
        with engine.begin() as connection, engine.connect() as reader:
            connection.execute(sa.text("insert into item default values"))
            reader.execution_options(router="replica").execute(PORT)
        restart(replica, engine)
        with engine.connect() as reader:
            port = reader.execution_options(router="replica").scalar(PORT)
        assert port == replica.port
        restart(primary, engine)
        with engine.begin() as connection:
            connection.execute(sa.text("insert into item default values"))
        assert told == [
            ("unreachable", "replica1"),
            ("reachable", "replica1"),
            ("unreachable", "primary"),
            ("degraded", "primary"),
            ("reachable", "primary"),
            ("writable", "primary"),
        ]
    finally:
        engine.dispose()


def test_a_restart_between_two_probes_is_noticed_by_the_probe(make_cluster: MakeCluster) -> None:
    """A probe that finds its own connection dead and the server well counts as an interruption."""
    cluster = make_cluster(0)
    primary = cluster.primary
    engine = router.create_engine(primary.url(), ["127.0.0.1:1"], probe_interval=60)
    try:
        with engine.begin() as connection:
            connection.execute(PORT)
        before = engine.router.refresh().reports["primary"].since
        primary.kill()
        primary.start()
        assert engine.router.refresh().reports["primary"].since > before
        with engine.begin() as connection:
            assert connection.scalar(PORT) == primary.port
    finally:
        engine.dispose()
