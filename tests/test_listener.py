"""A listener hears what is sent on the primary, wherever that is, and says when it could not."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

import router
from router import ListenerFailed, ListenerHealth, listen
from router.testing import Cluster, Proxy, Server
from tests.conftest import Database, MakeCluster
from tests.probing import end_monitors, until

WAIT = 10.0


class Told:
    """Remembers what a listener says of its health, and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[ListenerHealth] = []
        self._queue: queue.Queue[ListenerHealth] = queue.Queue()

    def __call__(self, health: ListenerHealth) -> None:
        self.all.append(health)
        self._queue.put(health)

    def wait(self, wanted: Callable[[ListenerHealth], bool]) -> ListenerHealth:
        while True:
            health = self._queue.get(timeout=WAIT)
            if wanted(health):
                return health


class Background:
    """Iterates over a listener in a thread, as a worker does."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.told = Told()
        self.heard: queue.Queue[router.Notification] = queue.Queue()
        self.error: BaseException | None = None
        self.listener = listen(*args, on_health=self.told, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            with self.listener:
                for found in self.listener:
                    self.heard.put(found)
        except router.RouterError as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.stop()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()

    def get(self) -> router.Notification:
        return self.heard.get(timeout=WAIT)

    def listening(self) -> ListenerHealth:
        return self.told.wait(lambda health: health.listening)

    def lost(self) -> ListenerHealth:
        return self.told.wait(lambda health: not health.listening)


def send(server: Server, channel: str, payload: str = "", dbname: str = "postgres") -> int:
    """Send a notification; the process id of the session that did."""
    rows = server.execute(
        "SELECT pg_notify(%s, %s), pg_backend_pid()", (channel, payload), dbname=dbname
    )
    return int(rows[0][1])


def end_listeners(server: Server, dbname: str) -> None:
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
        "AND application_name = 'pg-router listener'",
        (dbname,),
    )


@pytest.fixture
def engine(database: Database) -> Iterator[Any]:
    engine = router.create_engine(database.primary_url(), database.replica_urls())
    yield engine
    engine.dispose()


@pytest.fixture
def apart(make_cluster: MakeCluster) -> Cluster:
    """A cluster to break."""
    return make_cluster()


def routed(cluster: Cluster, **options: Any) -> router.Config:
    urls = [replica.url() for replica in cluster.replicas]
    return router.Config.from_url(cluster.primary.url(), urls, probe_interval=0.2, **options)


# -- hearing -----------------------------------------------------------------------------------


def test_a_thread_hears_its_channels_and_no_others(engine: Any, database: Database) -> None:
    """What was sent on a channel after the block was entered arrives, in order; whatever its
    name, and nothing of another one."""
    primary = database.cluster.primary
    odd = 'Odd "name"; --'
    with listen(engine, "jobs", odd) as listener:
        pid = send(primary, "jobs", "one", database.name)
        send(primary, "JOBS", "not this", database.name)
        send(primary, odd, dbname=database.name)
        heard = [listener.get(WAIT), listener.get(WAIT)]
        assert heard == [
            router.Notification("jobs", "one", pid, "primary"),
            router.Notification(odd, "", heard[1].pid, "primary"),  # type: ignore[union-attr]
        ]
        assert listener.get(0.01) is None
        assert repr(listener) == f"<Listener jobs, {odd}: listening to primary>"


def test_a_notification_sent_through_the_engine_arrives(engine: Any) -> None:
    """NOTIFY is a write for the router, so it reaches the node that is listened to."""
    import sqlalchemy as sa

    with listen(engine, "jobs") as listener:
        with engine.begin() as connection:
            connection.execute(sa.text("NOTIFY jobs, 'from here'"))
        found = listener.get(WAIT)
    assert found is not None
    assert found.payload == "from here"


def test_a_task_hears(database: Database) -> None:
    """The same on an event loop, from a URL alone; giving up a wait loses nothing."""

    async def scenario() -> list[str]:
        primary = database.cluster.primary
        heard = []
        async with listen(database.primary_url("asyncpg"), "jobs") as listener:
            assert await listener.aget(0.01) is None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await listener.aget()
            for number in range(3):
                await asyncio.to_thread(send, primary, "jobs", str(number), database.name)
            async for found in listener:
                heard.append(found.payload)
                if len(heard) == 3:
                    listener.stop()
        return heard

    assert asyncio.run(scenario()) == ["0", "1", "2"]


def test_more_than_is_kept_waits_at_the_server(
    engine: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that is slow gets everything in the end, and no memory grows meanwhile."""
    monkeypatch.setattr("router.listener.KEPT", 5)
    with listen(engine, "jobs") as listener:
        database.execute("SELECT pg_notify('jobs', i::text) FROM generate_series(1, 50) i")
        first = listener.get(WAIT)
        assert len(listener._arrived) <= 5
        rest = [listener.get(WAIT) for _ in range(49)]
    assert [int(n.payload) for n in (first, *rest) if n is not None] == list(range(1, 51))


def test_nothing_stays_behind(database: Database) -> None:
    """After the block neither a connection nor a monitor of the listener's own is left."""
    urls = database.replica_urls()
    with listen(router.Config.from_url(database.primary_url(), urls), "jobs") as listener:
        assert listener.router.started
        assert any("pg-router monitor" in t.name for t in threading.enumerate())
    assert not any(listener.router.cluster in t.name for t in threading.enumerate())
    deadline = time.monotonic() + WAIT
    while database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'pg-router%'"
    ):
        assert time.monotonic() < deadline  # the server notices by itself
        time.sleep(0.02)


def test_another_thread_may_stop_it(engine: Any) -> None:
    """stop() ends an iteration that waits."""
    with Background(engine, "jobs") as background:
        background.listening()
    assert background.error is None


# -- losing and finding ------------------------------------------------------------------------


def test_a_lost_connection_is_made_again(engine: Any, database: Database) -> None:
    """A session ended by the server is followed by another at once, and both are told."""
    primary = database.cluster.primary
    with Background(engine, "jobs") as background:
        background.listening()
        end_listeners(primary, database.name)
        lost = background.lost()
        assert lost.node == "primary"
        assert "server closed the connection" in lost.reason
        assert (lost.failures, lost.retry_in) == (0, 0.0)
        background.listening()
        send(primary, "jobs", "again", database.name)
        assert background.get().payload == "again"


def test_it_follows_the_primary(apart: Cluster) -> None:
    """After a failover the new primary is listened to, by the router's own knowledge of it."""
    with Background(routed(apart), "jobs") as background:
        background.listening()
        apart.primary.kill()
        background.lost()
        heir = apart.replicas[0]
        heir.promote()
        assert background.listening().node == "replica1"
        send(heir, "jobs", "from the heir")
        found = background.get()
    assert (found.payload, found.node) == ("from the heir", "replica1")


def test_a_primary_that_falls_silent_is_left(apart: Cluster) -> None:
    """A connection on which nothing arrives any more counts as lost when probes say so."""
    with Proxy(apart.primary.host, apart.primary.port) as proxy:
        config = router.Config.from_url(
            proxy.url(apart.primary.url()),
            [replica.url() for replica in apart.replicas],
            probe_interval=0.1,
            probe_timeout=1,
            connect_timeout=2,
        )
        with Background(config, "jobs") as background:
            background.listening()
            proxy.deaf()
            assert background.lost().reason == "it answers no probe"
            proxy.heal()
            background.listening()
            send(apart.primary, "jobs", "back")
            assert background.get().payload == "back"


def test_a_connection_that_hears_is_kept(apart: Cluster) -> None:
    """Where probes fail, for the server takes no new connections, and the listener's own answers,
    it is not lost, and misses nothing."""
    with Proxy(apart.primary.host, apart.primary.port) as proxy:
        url, replicas = proxy.url(apart.primary.url()), [r.url() for r in apart.replicas]
        config = router.Config.from_url(url, replicas, probe_interval=0.1, probe_timeout=0.5)
        with Background(config, "jobs") as background:
            background.listening()
            proxy.refuse()
            end_monitors([apart.primary], "postgres")
            counts = background.listener.router.telemetry.counts
            until(lambda: counts.total().get("reachable"), counts.total)
            for n in range(20):
                send(apart.primary, "jobs", str(n))
                time.sleep(0.02)
            assert [background.get().payload for _ in range(20)] == [str(n) for n in range(20)]
            assert "listener_lost" not in counts.total()


def test_pauses_grow_while_nothing_answers(database: Database) -> None:
    """Each attempt that fails doubles the pause up to the limit, less up to a half at random."""
    primary = database.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        url = proxy.url(database.primary_url())
        with Background(
            url, "jobs", backoff=0.01, backoff_max=0.05, rand=lambda: 0.5
        ) as background:
            background.listening()
            proxy.refuse()
            proxy.cut()
            told = background.told
            told.wait(lambda health: health.failures == 5)
            pauses = [health.retry_in for health in told.all if health.failures]
            assert pauses[:5] == pytest.approx([0.0075, 0.015, 0.03, 0.0375, 0.0375])
            proxy.heal()
            background.listening()
            assert background.listener.health == ListenerHealth(True, "primary")


def test_a_session_url_is_where_it_listens(engine: Any, database: Database) -> None:
    """It goes to the session's address, by libpq to whichever of its hosts is the primary; user
    and database are the engine's where it names none."""
    primary, replica = database.cluster.primary, database.cluster.replicas[0]
    with Proxy(primary.host, primary.port) as proxy:
        hosts = f"{replica.host}:{replica.port},{proxy.host}:{proxy.port}"
        whole = f"postgresql+psycopg://postgres@{hosts}/{database.name}"
        for made, session in enumerate((whole, f"postgresql://{hosts}"), 1):
            with listen(engine, "jobs", session_url=session) as listener:
                assert proxy.connections == made
                send(primary, "jobs", "past it", database.name)
                found = listener.get(WAIT)
            assert found is not None
            assert found.payload == "past it"


def test_a_shared_session_is_refused(database: Database) -> None:
    """Behind a PgBouncer that pools by transaction nothing would ever arrive: without session_url
    that is said at once, and only the primary counts."""
    url, replicas = database.primary_url(), database.replica_urls()
    for mode in ("transaction", "statement"):
        with pytest.raises(router.SessionRefused, match=f"by {mode}: give session_url"):
            listen(router.Config.from_url(url, replicas, pgbouncer=mode), "jobs")
    behind = [f"{replica}?pgbouncer=true" for replica in replicas]
    with listen(router.Config.from_url(url, behind), "jobs") as listener:
        send(database.cluster.primary, "jobs", "heard", database.name)
        assert (found := listener.get(WAIT)) is not None
    assert found.payload == "heard"


# -- failing -----------------------------------------------------------------------------------


def test_a_supervised_process_ends_when_it_loses_the_connection(
    engine: Any, database: Database
) -> None:
    """With exit_on_failure a loss is an error that names the node and the cure."""
    with Background(engine, "jobs", exit_on_failure=True) as background:
        background.listening()
        send(database.cluster.primary, "jobs", "last", database.name)
        assert background.get().payload == "last"
        end_listeners(database.cluster.primary, database.name)
        background.lost()
    assert isinstance(background.error, ListenerFailed)
    assert str(background.error).startswith("primary (")
    assert "Start the process anew" in str(background.error)


def test_a_supervised_process_ends_when_nothing_answers() -> None:
    """With exit_on_failure the block is not entered without a connection; no secret is shown."""
    url = "postgresql://someone:secret@127.0.0.1:1/db"
    with pytest.raises(ListenerFailed) as caught, listen(url, "jobs", exit_on_failure=True):
        pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "channels", "options", "named"),
    [
        ("postgresql://h/d", (), {}, "channels: none"),
        ("postgresql://h/d", ("",), {}, "channels: ''"),
        ("postgresql://h/d", ("é" * 32,), {}, "channels: 'éé"),
        ("postgresql://h/d", ("a\0b",), {}, "channels: 'a"),
        ("postgresql://h/d", ("a",), {"backoff": 0}, "backoff=0"),
        ("postgresql://h/d", ("a",), {"backoff": 2, "backoff_max": 1}, "backoff=2"),
        ("postgresql://h/d", ("a",), {"session_url": "postgresql://h/d?nope=1"}, "session_url: "),
        ("postgresql://h/d", ("a",), {"session_url": "postgresql:/u:s3cret@h"}, "session_url: t"),
        (
            "postgresql://h/d",
            ("a",),
            {"session_url": "postgresql://u:s3cret@/d"},
            "session_url: i",
        ),
        (42, ("a",), {}, "target: int"),
    ],
)
def test_mistakes_are_named(
    target: Any, channels: tuple[str, ...], options: dict[str, Any], named: str
) -> None:
    """What cannot work is refused when it is made, by the name of the argument."""
    with pytest.raises(router.ConfigError) as caught:
        listen(target, *channels, **options)
    assert str(caught.value).startswith(named)
    assert "s3cret" not in str(caught.value)


def test_it_is_for_a_block(engine: Any) -> None:
    """Outside its block, and in a second one inside the first, it says what to do."""
    listener = listen(engine, "jobs")
    with pytest.raises(RuntimeError, match="with block"):
        listener.get(0)
    with listener:
        assert listener.get(0) is None
    with pytest.raises(RuntimeError, match="with block"):
        listener.get(0)
