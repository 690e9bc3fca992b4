"""A replica, or a session URL, that leads to another database of the right servers by a slip."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

import router
from router import ListenerHealth, listen
from router.errors import ConfigError, NoReplicaAvailable, SessionRefused
from router.status.report import status
from router.testing import Proxy
from tests.pgbouncer import bouncer
from tests.sqlalchemy.kit import EVERY_DRIVER, PORT, THROUGH, Routed

OPENS = "opens the database 'postgres', and the primary '{}'"
LISTEN = sa.text("LISTEN jobs")


@contextmanager
def astray(routed: Routed) -> Iterator[tuple[str, list[str], str]]:
    """A PgBouncer in front of every server: the primary's URL, those of the replicas, and one that
    leads to the first replica's database ``postgres``."""
    replica = routed.cluster.replicas[0]
    entry = f"\nastray = host={replica.host} port={replica.port} dbname=postgres"
    with bouncer(routed.cluster, routed.dbname, entries=entry) as (primary, replicas):
        yield primary, replicas, primary.rpartition("/")[0] + "/astray"


@EVERY_DRIVER
def test_another_name_is_refused_before_anything_is_opened(routed: Routed) -> None:
    """Both names are known: the engine is not made, by any driver."""
    opens = f"replicas\\[0\\]: it {OPENS.format(routed.dbname)}"
    replica = routed.cluster.replicas[0].url("postgres")
    with pytest.raises(ConfigError, match=opens):
        routed.another(replicas=[replica])
    url = f"{routed.engine.url.render_as_string(hide_password=False)}?plugin=router"
    for given in ({"replicas": [replica]}, {"router_replicas": replica}):
        with pytest.raises(ConfigError, match=opens):
            sa.create_engine(url, **given)
    with pytest.raises(ConfigError, match=opens):
        sa.create_engine(f"{url}&replica={quote(replica, safe='')}")


@EVERY_DRIVER
def test_a_default_that_differs_is_found_at_the_start(
    routed: Routed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name is left out the driver has its own, and the servers tell what was opened: the
    first statement raises, and none was read there."""
    monkeypatch.delenv("PGDATABASE", raising=False)
    primary = routed.engine.url._replace(database=None)
    with pytest.raises(ConfigError) as caught:
        routed.another(url=primary, replicas=[routed.cluster.replicas[0].url(routed.dbname)])
    said = (
        f"replicas[0]: replica1 (127.0.0.1:{routed.cluster.replicas[0].port}) opens the database"
    )
    assert str(caught.value).startswith(f"{said} {routed.dbname!r}, and the primary 'postgres'")


@pytest.mark.doors("psycopg", "asyncpg_async")
def test_behind_a_pooler_the_start_tells(routed: Routed) -> None:
    """Names may differ there: the one that leads to another database is refused at the start."""
    with astray(routed) as (primary, replicas, elsewhere):
        url = routed.engine.url.set(port=sa.make_url(primary).port)
        with pytest.raises(ConfigError, match=f"replicas\\[1\\]: .*{OPENS.format(routed.dbname)}"):
            routed.another(url=url, replicas=[replicas[1], elsewhere], pgbouncer=True)
        engine = routed.another(url=url, replicas=replicas, pgbouncer=True)
        with router.request_context(), engine.connect() as connection:
            assert routed.served(connection) == "replica"


def test_what_could_not_be_asked_at_the_start_gets_nothing(routed: Routed) -> None:
    """A server that answers later, or joins later, and opens another database serves no read, is
    told as an error once, and named where somebody asks why."""
    told: list[dict[str, Any]] = []
    with astray(routed) as (primary, replicas, elsewhere):
        pooler = sa.make_url(primary)
        with Proxy("127.0.0.1", pooler.port or 0) as proxy:
            proxy.refuse()
            late = proxy.url(elsewhere)
            engine = routed.another(url=primary, replicas=[late], pgbouncer=True, fallback="error")
            engine.router.telemetry.hooks.append(
                lambda name, fields: told.append(dict(fields)) if name == "foreign" else None
            )
            proxy.heal()
            deadline = time.monotonic() + 20
            while not told:
                assert time.monotonic() < deadline
                engine.router.refresh()
            added = engine.router.add_replica({"url": elsewhere})
            while len(told) < 2:
                assert time.monotonic() < deadline
                engine.router.refresh()
            with (
                pytest.raises(NoReplicaAvailable, match=OPENS.format(routed.dbname)),
                router.request_context(),
                engine.connect() as connection,
            ):
                connection.execute(PORT)
            opens = OPENS.format(routed.dbname)
            assert [fields["node"] for fields in told] == ["replica1", added.name]
            assert {fields["reason"] for fields in told} == {opens}
            problems = [node.problem for node in status(engine.router).nodes]
            assert problems == ["", *[f"gets nothing: it {opens}"] * 2]
            right = engine.router.add_replica({"url": replicas[0]})
            while right not in engine.router.replicas:
                assert time.monotonic() < deadline
                engine.router.refresh()
            with router.request_context(), engine.connect() as connection:
                assert routed.served(connection) == "replica"


@pytest.mark.doors(
    *(door + THROUGH for door in ("psycopg", "psycopg_async", "asyncpg_async", "psycopg2"))
)
def test_a_session_url_to_another_database_is_refused(routed: Routed) -> None:
    """What needs a session, as migrations and locks do, is not sent to another database."""
    engine = routed.another(session_url=routed.cluster.primary.url("postgres"))
    said = f"session_url: the database there is 'postgres', and the primary's '{routed.dbname}'"
    with engine.connect() as connection, pytest.raises(SessionRefused, match=said):
        connection.execute(LISTEN)


def test_a_listener_does_not_listen_in_another_database(routed: Routed) -> None:
    """A notification never leaves its database, so one that was not to be heard there is an error
    of the listener's, who says which database was meant."""
    with astray(routed) as (primary, replicas, _):
        session = routed.cluster.primary.url("postgres")
        options: dict[str, Any] = {"pgbouncer": True, "session_url": session}
        config = router.Config.from_url(primary, replicas[:1], **options)
        told: list[ListenerHealth] = []
        tried = threading.Event()

        def hear(health: ListenerHealth) -> None:
            told.append(health)
            tried.set()

        with listen(config, "jobs", on_health=hear):
            assert tried.wait(20)
    assert not told[0].listening
    assert (
        f"the database there is 'postgres', and the primary's '{routed.dbname}'" in told[0].reason
    )
    with pytest.raises(ConfigError, match="session_url: it opens the database 'postgres'"):
        listen(routed.engine, "jobs", session_url=session)
