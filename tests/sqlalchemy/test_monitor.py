"""The probe loop of an engine: dark nodes, clocks that jump, its end."""

import ast
import gc
import os
import signal
import threading
import time
import weakref
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import router
from router.cluster.probe_loop import ProbeLoop
from router.model import Report
from router.testing import Proxy
from tests.sqlalchemy.kit import PORT, Routed, insert


def test_a_dark_node_holds_up_no_pin(routed: Routed) -> None:
    """While one replica answers no probe, a write is read from the other one as soon as ever."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            probe_timeout=1.5,
            probe_interval=0.2,
        )
        proxy.deaf()
        assert not engine.router.refresh(20).reports["replica2"].ok
        started = time.monotonic()
        with router.request_context(), engine.connect() as connection:
            for _ in range(8):
                insert(connection)
                connection.commit()
                routed.await_replica(connection)
        # Were each pin to wait for that replica's probe, it would take eight time-outs.
        assert time.monotonic() - started < 8


def test_a_server_that_falls_silent_is_noticed_in_two_probes(routed: Routed) -> None:
    """A probe of a deaf server ends after probe_timeout, whatever the driver does to cancel it."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            probe_timeout=0.3,
            probe_interval=0.1,
        )
        proxy.deaf()
        started = time.monotonic()
        while engine.router.snapshot.down("replica2") is None:
            engine.router.refresh()
        assert time.monotonic() - started < 10  # psycopg alone takes ten seconds for each


def test_a_statement_after_the_question_hides_no_silence_since(routed: Routed) -> None:
    """A probe that waits for its answer while statements succeed says nothing against the server;
    once those get none either, it is noticed as soon as ever, though nothing new is asked."""
    primary = routed.cluster.primary
    with Proxy(primary.host, primary.port) as proxy:
        engine = routed.another(
            url=proxy.url(primary.url(routed.dbname)),
            probe_timeout=0.5,
            probe_interval=0.2,
            connect_timeout=60,
        )
        with engine.connect() as connection:
            insert(connection)
            connection.commit()
        name = {"name": "pg-router monitor", "database": routed.dbname}
        ((pid,),) = primary.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %(database)s"
            " AND application_name = %(name)s ORDER BY backend_start DESC LIMIT 1",
            name,
        )
        os.kill(pid, signal.SIGSTOP)
        try:
            until = time.monotonic() + 20
            while engine.router.snapshot.reports["primary"].ok:
                assert time.monotonic() < until
                with engine.connect() as connection:
                    insert(connection)
                    connection.commit()
            assert engine.router.snapshot.doubted("primary") is None
            proxy.deaf()
            began = time.monotonic()
            while engine.router.snapshot.doubted("primary") is None:
                assert time.monotonic() - began < 10
                time.sleep(0.02)
        finally:
            os.kill(pid, signal.SIGCONT)
            engine.dispose()


def test_a_refresh_waits_for_every_node(routed: Routed) -> None:
    """Also one that has failed before is asked anew, and its answer is in the result."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            probe_interval=60,
        )
        proxy.refuse()
        proxy.cut()
        assert not engine.router.refresh().reports["replica2"].ok
        proxy.heal()
        assert {n.name for n in engine.router.refresh().replicas} == {"replica1", "replica2"}


def test_a_process_that_writes_all_the_time_is_probed_for_now_and_then(routed: Routed) -> None:
    """However often it writes, there is one round for each pin_probe_interval at the most."""
    engine = routed.another(pin_probe_interval=0.2, probe_interval=60)
    with engine.connect() as connection:
        insert(connection)
        connection.commit()
        began, before = time.monotonic(), len(engine.router.snapshot.samples)
        rounds = 0
        while rounds < 4:
            insert(connection)
            connection.commit()
            rounds = len(engine.router.snapshot.samples) - before
    # One round may have been under way at the beginning.
    assert time.monotonic() - began >= 0.2 * 2


def test_a_probe_that_is_given_up_is_nobodys_business(
    routed: Routed, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing an engine in the middle of a probe logs nothing, neither here nor in the driver."""
    far = routed.cluster.replicas[1]
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[proxy.url(far.url(routed.dbname))], probe_interval=0.1, probe_timeout=60
        )
        proxy.deaf()
        asked = proxy.bytes_sent
        while proxy.bytes_sent == asked:  # until a probe is on its way that nobody answers
            engine.router.refresh(timeout=0.1)
        caplog.clear()
        with caplog.at_level("INFO"):
            began = time.monotonic()
            engine.dispose()
        assert time.monotonic() - began < 30
    assert not [r for r in caplog.records if r.name.startswith(("psycopg", "router"))]


def test_a_clock_that_jumps_ahead_stops_nothing(routed: Routed) -> None:
    """A jump, as of a machine that slept, ends blacklist terms by a probe and leaves pins, probes
    and reads as they were; a longer one is as if that much time had passed."""
    engine, ahead = routed.another(pin_max=90_000), [0.0]
    engine.router.clock = lambda: time.monotonic() + ahead[0]
    victim = engine.router.snapshot.node("replica1")
    engine.router.health.failed(victim, "a test")
    with router.request_context(), engine.connect() as connection, routed.paused():
        insert(connection)
        connection.commit()
        ahead[0] = 86_400.0
        before = engine.router.snapshot.samples[-1].started
        engine.router.refresh()
        assert engine.router.snapshot.samples[-1].started - before > 80_000
        assert "replica1" not in engine.router.blacklisted
        with engine.connect() as other:
            assert other.scalar(sa.text("SELECT count(*) FROM item")) == 1
    with router.request_context(), engine.connect() as connection:
        assert routed.served(connection) == "replica"


def test_routing_never_reads_the_wall_clock() -> None:
    """Only pins carried between processes need the time of day, what shows it to people, and the
    doctor, who compares clocks; nothing else minds its jumps."""
    found = []
    house = Path(__file__).parents[2] / "router"
    known = {house / name for name in ("pins/carrier.py", "status/page.py", "doctor/survey.py")}
    known |= {*house.glob("testing/*"), *house.glob("cli/*")}
    for path in sorted(set(house.rglob("*.py")) - known):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if text in ("time.time", "datetime.now", "datetime.datetime.now"):
                    found.append(f"{path.name}:{node.lineno}")
    assert found == []


def test_nothing_of_it_is_left_after_dispose(routed: Routed) -> None:
    """A monitor that waits for a dark node ends at once with its engine, thread and sockets."""
    near, far = routed.cluster.replicas
    with Proxy(far.host, far.port) as proxy:
        engine = routed.another(
            replicas=[near.url(routed.dbname), proxy.url(far.url(routed.dbname))],
            probe_timeout=60,
            name="to be disposed",
        )
        proxy.deaf()
        engine.router.refresh(0.3)  # it is in the middle of a probe now
        with router.using_primary(), engine.connect() as connection:
            connection.execute(PORT)
        started = time.monotonic()
        engine.dispose()
        assert time.monotonic() - started < 5
        assert not [t for t in threading.enumerate() if "to be disposed" in t.name]
        assert isinstance(engine.router.snapshot.reports["primary"], Report)


def test_a_migrations_lock_holds_up_no_probe(routed: Routed) -> None:
    """While a table under a view is locked the catalog cannot be read; probes go on, and so do
    reads, by the catalog known before."""
    routed.execute_on_primary("CREATE VIEW items AS SELECT * FROM item")
    routed.settle()
    engine = routed.another()
    with psycopg.connect(routed.cluster.primary.conninfo(routed.dbname)) as migration:
        migration.execute("ALTER TABLE item ADD COLUMN more int")
        monitor = engine.router.monitor
        assert monitor is not None
        monitor.refresh_catalog()
        started = time.monotonic()
        before = engine.router.snapshot.samples[-1].started
        engine.router.refresh(20)
        assert engine.router.snapshot.samples[-1].started > before
        assert time.monotonic() - started < 5
        with router.request_context(), engine.connect() as connection:
            assert routed.served(connection) == "replica"
        migration.rollback()
    assert "catalog_unreadable" not in engine.router.stats()["events"]


def test_many_processes_do_not_probe_in_step(routed: Routed) -> None:
    """A pause at rest is up to a tenth shorter than probe_interval, by chance."""
    engine = routed.another(probe_interval=1)
    watch = ProbeLoop(engine.router, lambda node: {}, lambda name: frozenset())
    pauses = {watch._pause() for _ in range(50)}
    assert len(pauses) > 40
    assert 0.9 <= min(pauses) < max(pauses) <= 1


def monitors(name: str) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if name in t.name]


def test_an_engine_nobody_disposed_of_leaves_no_monitor(routed: Routed) -> None:
    """The monitor of an engine that was dropped without dispose() ends, and closes its
    connections; one whose pool was replaced by dispose() goes on."""
    replicas = [r.url(routed.dbname) for r in routed.cluster.replicas]
    primary = routed.cluster.primary.url(routed.dbname)
    # Pooled connections that nobody closes are the driver's to complain of.
    engine = router.create_engine(
        primary, replicas=replicas, name="to be dropped", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        connection.execute(PORT)
    engine.dispose()
    with engine.connect() as connection:
        connection.execute(PORT)
    gc.collect()  # the first pool
    (thread,) = monitors("to be dropped")
    engine.router.refresh(5)
    assert monitors("to be dropped") == [thread]
    forgotten = weakref.ref(engine.router)
    del engine, connection
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    gc.collect()
    assert forgotten() is None
