"""The configuration of real systems, retyped from their documents, on a real cluster.

Only hosts, ports and credentials are the cluster's; whatever else stands there stands here.
"""

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa

import router
from router import Config, ConfigError
from router.config.pgbouncer_ini import md5
from tests.conftest import Database
from tests.pgbouncer import bouncer, free_port, running

PORT = sa.text("SELECT inet_server_port()")
WRITE = sa.text("CREATE TABLE item (id int)")


def routes(config: Config, database: Database, **options: Any) -> Any:
    """Whether a read goes to a replica and a write to the primary; the engine, to look at."""
    engine = router.create_engine(config, **options)
    engine.router.start()
    with engine.connect() as connection:
        served = connection.scalar(PORT)
        assert served in {replica.port for replica in database.cluster.replicas}
        connection.execute(WRITE)
        assert connection.scalar(PORT) == database.cluster.primary.port
        connection.commit()
    return engine


@pytest.fixture(autouse=True)
def _no_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)


def test_mediafusion(database: Database) -> None:
    """POSTGRES_URI in SQLAlchemy's spelling, a read URI in the other, pools of 50 / 3 / 2."""
    environ = {
        "POSTGRES_URI": database.primary_url("asyncpg"),
        "POSTGRES_READ_URI": database.replica_urls()[0],
        "POSTGRES_USE_PGBOUNCER": "false",
        "DB_MAX_CONNECTIONS": "50",
        "GUNICORN_WORKERS": "3",
    }

    async def main() -> None:
        engine = router.create_async_engine(Config.from_mediafusion(environ))
        async with engine.connect() as connection:
            assert await connection.scalar(PORT) == database.cluster.replicas[0].port
            await connection.execute(WRITE)
            assert await connection.scalar(PORT) == database.cluster.primary.port
            await connection.commit()
            assert engine.pool.status().count("Pool size: 8 ") == 2
        await engine.dispose()

    asyncio.run(main())


def test_horsies(database: Database) -> None:
    """The production example of PostgresConfig: its pool, and a replica for its reads."""
    fields = {
        "database_url": database.primary_url("psycopg"),
        "pool_size": 10,
        "max_overflow": 20,
        "pool_timeout": 30,
        "pool_recycle": 3600,
    }
    config = Config.from_horsies(fields, replicas=database.replica_urls())
    engine = routes(config, database)
    pool = engine.pool.node_pool(engine.router.primary)
    assert (pool.size(), pool._max_overflow, engine.pool.source.timeout) == (10, 20, 30)
    assert (pool._recycle, pool._pre_ping) == (3600, True)
    engine.dispose()


def test_taskito(database: Database) -> None:
    """The URL of its compose file and systemd unit, with replicas for its dashboard's reads; the
    schema of its settings is made, and meant on every node."""
    settings = {
        "TASKITO_BACKEND": "postgres",
        "TASKITO_DB_URL": database.primary_url(),
        "TASKITO_SCHEMA": "taskito",
    }
    url, schema = settings["TASKITO_DB_URL"], settings["TASKITO_SCHEMA"]
    config = Config.from_url(url, replicas=database.replica_urls(), schema=schema)
    assert router.create_schema(config)
    database.cluster.wait_caught_up()
    routes(config, database).dispose()
    assert database.execute("SELECT to_regclass('taskito.item')::text") == [("taskito.item",)]
    with pytest.raises(ConfigError, match="schema: 'my-tasks' is no name of letters"):
        Config.from_url(url, schema="my-tasks")


def test_pgqueuer(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOST, PGUSER and PGDATABASE from its unit file are the primary, as for asyncpg."""
    primary = database.cluster.primary
    for name, value in {"PGHOST": primary.host, "PGPORT": str(primary.port),
                        "PGUSER": "postgres", "PGDATABASE": database.name}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    replicas = [f"{replica.host}:{replica.port}" for replica in database.cluster.replicas]
    routes(Config.from_libpq(replicas=replicas), database).dispose()


def soapbox(primary: str, replica: str) -> dict[str, Any]:
    """What a YAML library makes of the section ``production``, its ``default`` merged in."""
    connections = [
        {"role": "master", "blacklist_duration": 0, "url": primary},
        {"role": "slave", "url": replica},
    ]
    return {
        "pool": 5,
        "timeout": 5000,
        "connect_timeout": 15,
        "encoding": "unicode",
        "adapter": "postgresql_makara",
        "prepared_statements": False,
        "makara": {"id": "postgres", "sticky": True, "connections": connections},
    }


def test_soapbox(database: Database) -> None:
    """Makara's YAML block as it stands: servers, blacklist, pool; no statement is prepared."""
    block = soapbox(database.primary_url(), database.replica_urls()[0])
    config = Config.from_makara(block)
    assert config.primary.node("primary", router.model.Role.PRIMARY).blacklist_duration == 0
    assert (config.cluster, config.consistency) == ("postgres", "lsn")
    engine = routes(config, database)
    assert engine.pool.node_pool(engine.router.primary).size() == 5
    with engine.connect() as connection:
        for _ in range(7):
            prepared = connection.scalar(sa.text("SELECT count(*) FROM pg_prepared_statements"))
            assert prepared == 0
    engine.dispose()


def test_soapbox_by_database_name() -> None:
    """Both URLs through one pooler, told apart by database only, are two nodes."""
    pooler = "postgresql://db_user:db_password@127.0.0.1:6432/"
    config = Config.from_makara(soapbox(pooler + "mastodon", pooler + "mastodon_replica"))
    nodes = config.nodes()
    assert {(node.host, node.port) for node in nodes} == {("127.0.0.1", 6432)}
    assert [node.dbname for node in nodes] == ["mastodon", "mastodon_replica"]


# -- the same through a PgBouncer that pools by transaction ---------------------------------------


def test_mediafusion_behind_pgbouncer(database: Database) -> None:
    """POSTGRES_USE_PGBOUNCER=true with both URIs through it: asyncpg keeps nothing prepared, so
    far more checkouts than PgBouncer has server connections collide in nothing."""

    async def main(environ: dict[str, str]) -> None:
        # Probes wait for the four server connections as well.
        config = Config.from_mediafusion(environ, probe_timeout=10.0)
        engine = router.create_async_engine(config)
        served: list[int | None] = []

        async def ask(n: int) -> None:
            async with engine.connect() as connection:
                served.append(await connection.scalar(PORT))
                if n % 4 == 0:
                    await connection.execute(sa.text("INSERT INTO item VALUES (:n)"), {"n": n})
                    await connection.commit()

        try:
            await asyncio.gather(*(ask(n) for n in range(40)))
        finally:
            await engine.dispose()
        ports = {replica.port for replica in database.cluster.replicas}
        assert sum(port in ports for port in served) > 20

    database.execute("CREATE TABLE item (id int)")
    with bouncer(database.cluster, database.name, pool_size=4) as (primary, replicas):
        environ = {
            "POSTGRES_URI": primary.replace("postgresql:", "postgresql+asyncpg:"),
            "POSTGRES_READ_URI": replicas[0],
            "POSTGRES_USE_PGBOUNCER": "true",
            "DB_MAX_CONNECTIONS": "50",
            "GUNICORN_WORKERS": "3",
        }
        with router.without_pinning():
            asyncio.run(main(environ))
    assert database.execute("SELECT count(*) FROM item") == [(10,)]


def test_horsies_split_configuration(database: Database) -> None:
    """The split of PgBouncer and session URL: it routes, and what needs a session has one."""
    with bouncer(database.cluster, database.name) as (pooler, replicas):
        fields = {
            "database_url": pooler.replace("postgresql:", "postgresql+psycopg:"),
            "session_database_url": database.primary_url("psycopg"),
            "pgbouncer_transaction_mode": True,
        }
        engine = routes(Config.from_horsies(fields, replicas=replicas), database)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT pg_advisory_lock(7)"))
            held = sa.text("SELECT count(*) FROM pg_locks WHERE objid = 7 AND pid = "
                           "pg_backend_pid() AND locktype = 'advisory'")  # fmt: skip
            assert connection.scalar(held) == 1
            assert connection.scalar(PORT) == database.cluster.primary.port
        engine.dispose()


def test_soapbox_behind_one_pgbouncer(database: Database) -> None:
    """Both URLs through one PgBouncer, told apart by database name, route."""
    with bouncer(database.cluster, database.name) as (primary, replicas):
        block = soapbox(primary, replicas[0])
        assert len({url.rpartition("/")[0] for url in (primary, replicas[0])}) == 1
        routes(Config.from_makara(block, pgbouncer=True), database).dispose()


SOAPBOX_INI = """
[databases]
mastodon_production = host={} port={} dbname={} user=mastodon password=password
mastodon_replica = host={} port={} dbname={} user=mastodon password=password

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {}
auth_type = md5
auth_file = userlist.txt
admin_users = pgbouncer
pool_mode = transaction
max_client_conn = 100
default_pool_size = 20
"""
SOAPBOX_USERS = """
"mastodon" "md5d75bb2be2d7086c6148944261a00f605"
"pgbouncer" "md5a45753afaca0db833a6f7c7b2864b9d9"
"""


def test_soapboxs_own_pgbouncer(database: Database) -> None:
    """PgBouncer started from the files of its documentation is read as it stands: the pool mode,
    the address, and master and replica by database name; the hashes are the ones we write."""
    assert f'"{md5("mastodon", "password")}"' in SOAPBOX_USERS
    database.execute(
        "DO $$ BEGIN CREATE ROLE mastodon LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    database.execute(f"ALTER DATABASE {database.name} OWNER TO mastodon")
    database.cluster.wait_caught_up()
    port, servers = free_port(), (database.cluster.primary, database.cluster.replicas[0])
    places = [part for server in servers for part in (server.host, server.port, database.name)]
    with running(SOAPBOX_INI.format(*places, port), SOAPBOX_USERS, port) as home:
        config = Config.from_pgbouncer_ini(
            home / "pgbouncer.ini",
            "mastodon_production",
            ["mastodon_replica"],
            user="mastodon",
            password="password",
        )
        assert config.pooling(config.primary) == "transaction"
        routes(config, database).dispose()


# -- a Config and an engine --------------------------------------------------------------------


def test_options_beside_a_config_win(database: Database) -> None:
    """What the call says is SQLAlchemy's or the router's, and counts more than the Config."""
    config = Config.from_url(database.primary_url(), database.replica_urls(), pool_size=3)
    engine = routes(config, database, pool_size=4, pin_max=7, query_cache_size=10)
    assert engine.pool.node_pool(engine.router.primary).size() == 4
    assert engine.router.config.pin_max == 7
    assert config.pool_size == 3
    engine.dispose()


def test_a_config_of_one_server(database: Database) -> None:
    """Without replicas everything runs on the primary, over the Config's own address."""
    engine = router.create_engine(Config.from_url(database.primary_url()))
    with engine.connect() as connection:
        assert connection.scalar(PORT) == database.cluster.primary.port
    assert engine.url.port == database.cluster.primary.port
    engine.dispose()


def test_a_config_through_sqlalchemys_own_function(database: Database) -> None:
    """The plugin takes a Config as router_config; the URL then only names the driver."""
    config = Config.from_url(database.primary_url(), database.replica_urls())
    engine = sa.create_engine("postgresql+psycopg://", plugins=["router"], router_config=config)
    with engine.connect() as connection:
        assert connection.scalar(PORT) in {r.port for r in database.cluster.replicas}
    engine.dispose()


def test_libpqs_choice_of_hosts_is_not_asked_of_nodes(database: Database) -> None:
    """PGTARGETSESSIONATTRS=primary in the environment does not keep replicas from being used."""
    with pytest.MonkeyPatch.context() as patch:  # the servers' own fixtures use libpq too
        patch.setenv("PGTARGETSESSIONATTRS", "primary")
        config = Config.from_url(database.primary_url(), database.replica_urls())
        routes(config, database).dispose()


def test_the_pool_time_out_of_a_budget_names_it(database: Database) -> None:
    """With sizes from max_connections the error says how they came about, and what to raise."""
    config = Config.from_url(
        database.primary_url(), database.replica_urls()[:1], max_connections=6, workers=3,
        pool_timeout=0.1,
    )  # fmt: skip
    engine = router.create_engine(config)
    with engine.connect() as one, engine.connect() as two:
        one.execute(WRITE)
        with pytest.raises(
            sa.exc.TimeoutError,
            match=r"primary .*size 1 overflow 0.*max_connections=6 is shared by 3 workers and 2 n",
        ):
            two.execute(WRITE)
        one.rollback()
    engine.dispose()
