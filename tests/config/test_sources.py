"""Where options are found, what wins, what is refused, and that no password shows."""

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq

from router.config.config import Config
from router.config.options import OPTIONS
from router.config.sources import libpq
from router.errors import ConfigError

URL = "postgresql://app:s3cret@p.example/shop"
YAML: Any = {1: URL}
Where = dict[str, str]


def origins(config: Config) -> dict[str, tuple[object, str]]:
    return {name: (value, source) for name, value, source in config.explain().rows}


@pytest.fixture(autouse=True)
def _no_libpq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have PGHOST and the like set."""
    for name in (*libpq.VARIABLES, "PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGHOSTADDR"):
        monkeypatch.delenv(name, raising=False)


# -- one way each ------------------------------------------------------------------------------

SHOP = ("p.example", 6000, "app", "s3cret", "shop")


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shop.toml"
    path.write_text(text)
    return path


def from_toml(tmp_path: Path) -> Config:
    path = toml(
        tmp_path,
        """
        [tool.pg-router]
        url = "postgres://app:s3cret@p.example:6000/shop"
        replicas = ["r1", { host = "r2", weight = 2 }]
        pin_max = 9
        """,
    )
    return Config.from_toml(path, "tool.pg-router")


def from_env(_: Path) -> Config:
    environ = {
        "PG_ROUTER_URL": "postgresql+psycopg://app:s3cret@p.example:6000/shop",
        "PG_ROUTER_REPLICAS": "r1,r2",
        "PG_ROUTER_PIN_MAX": "9",
        "PG_ROUTER_ZONE": "",
        "HOME": "/root",
    }
    return Config.from_env(environ=environ)


def from_flask(_: Path) -> Config:
    settings = {
        "SECRET_KEY": "x",
        "ROUTER_HOST": "p.example",
        "ROUTER_PORT": 6000,
        "ROUTER_USER": "app",
        "ROUTER_PASSWORD": "s3cret",
        "ROUTER_DBNAME": "shop",
        "ROUTER_REPLICAS": ["r1", "r2"],
        "ROUTER_PIN_MAX": 9,
    }
    return Config.from_mapping(settings, prefix="ROUTER_")


def from_url(_: Path) -> Config:
    return Config.from_url(
        "postgresql://app:s3cret@p.example:6000/shop?plugin=router&replica=r1&replica=r2&pin_max=9"
    )


def from_libpq(_: Path) -> Config:
    environ = {
        "PGHOST": "p.example",
        "PGPORT": "6000",
        "PGUSER": "app",
        "PGPASSWORD": "s3cret",
        "PGDATABASE": "shop",
    }
    return Config.from_libpq(environ=environ, replicas=["r1", "r2"], pin_max=9)


def from_service(tmp_path: Path) -> Config:
    services = tmp_path / "services"
    services.write_text(
        "# ours\n[other]\nhost=x\n\n[shop]\nhost=p.example\nport=6000\nuser=app\n"
        "password=s3cret\ndbname=shop\nsslmode=require\n[shop_replica]\nhost=r1\n"
    )
    environ = {"PGSERVICEFILE": str(services), "PGSERVICE": "shop", "PGHOST": "never"}
    replicas = ["service=shop_replica", "r2"]
    return Config.from_libpq(environ=environ, replicas=replicas, pin_max=9)


def from_makara(_: Path) -> Config:
    connections = [
        {"role": "primary", "host": "p.example"},
        {"role": "replica", "host": "r1"},
        {"role": "replica", "host": "r2"},
    ]
    block = {
        "adapter": "postgresql_makara",
        "username": "app",
        "password": "s3cret",
        "database": "shop",
        "port": 6000,
        "makara": {"connections": connections},
    }
    return Config.from_makara(block, pin_max=9)


@pytest.mark.parametrize(
    "make", [from_toml, from_env, from_flask, from_url, from_libpq, from_service, from_makara]
)
def test_every_way_says_the_same(make: Any, tmp_path: Path) -> None:
    """One cluster, written in every format, is one Config; its text and repr hold no password."""
    config = make(tmp_path)
    primary = config.primary
    assert (primary.host, primary.port, primary.user, primary.password, primary.dbname) == SHOP
    assert [server.host for server in config.replicas] == ["r1", "r2"]
    assert all(server.password == "s3cret" for server in config.replicas)
    assert config.pin_max == 9
    assert "s3cret" not in str(config.explain()) + repr(config)
    assert origins(config)["primary.password"][0] == "***"


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (from_toml, {"pin_max": "shop.toml [tool.pg-router] pin_max", "primary.host": "url"}),
        (from_env, {"pin_max": "PG_ROUTER_PIN_MAX", "primary.user": "PG_ROUTER_URL",
                    "replica1.host": "PG_ROUTER_REPLICAS", "pin_duration": "default"}),
        (from_flask, {"primary.port": "ROUTER_PORT", "pin_max": "ROUTER_PIN_MAX"}),
        (from_url, {"pin_max": "url", "replica2.host": "url"}),
        (from_libpq, {"primary.password": "PGPASSWORD", "pin_max": "argument pin_max"}),
        (from_service, {"primary.host": "service shop of "}),
        (from_makara, {"primary.host": "makara.connections, the primary's",
                       "primary.user": "the block"}),
    ],
)  # fmt: skip
def test_each_value_says_where_it_came_from(make: Any, where: Where, tmp_path: Path) -> None:
    """explain() names the variable, key, file or argument of each value, or says "default"."""
    found = origins(make(tmp_path))
    for name, source in where.items():
        assert source in found[name][1]
    assert set(OPTIONS) <= found.keys()


# -- URLs and passwords ------------------------------------------------------------------------


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12))
def test_any_password_survives_every_way(password: str) -> None:
    """Percent-encoded in a URL or as it is in a key, a password arrives and is never shown."""
    url = f"postgresql://app:{quote(password, safe='')}@p.example/shop"
    for config in (
        Config.from_url(url),
        Config.from_env(environ={"PG_ROUTER_URL": url}),
        Config.from_mapping({"host": "p.example", "user": "app", "password": password}),
        Config.from_libpq(environ={"PGHOST": "p.example", "PGPASSWORD": password}),
    ):
        assert config.primary.password == password
        assert origins(config)["primary.password"][0] == "***"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgres://h1,h2:6000/db", [("h1", 5432), ("h2", 6000)]),
        ("postgresql+asyncpg://[::1]:6000,[::2]/db", [("::1", 6000), ("::2", 5432)]),
        ("postgresql:///db?host=h1&host=h2:6000", [("h1", 5432), ("h2", 6000)]),
        ("postgresql:///db?host=h1,h2&port=5433,5434", [("h1", 5433), ("h2", 5434)]),
        ("postgresql:///db?host=/var/run/PG&port=6000", [("/var/run/PG", 6000)]),
        ("postgresql://%2Fvar%2Frun%2FPG/db", [("/var/run/PG", 5432)]),
    ],
)
def test_hosts_are_nodes(url: str, hosts: list[tuple[str, int]]) -> None:
    """Several hosts, IPv6 addresses and socket directories are understood in each spelling."""
    config = Config.from_url(url)
    assert [(s.host, s.port) for s in (config.primary, *config.replicas)] == hosts
    assert {s.dbname for s in (config.primary, *config.replicas)} == {"db"}


def test_a_url_of_sqlalchemys_brings_its_password() -> None:
    """A URL object, whose text hides the password, is a URL wherever one is expected."""
    url: Any = sa.URL.create(
        "postgresql+psycopg", "app", "p@ss/word", "p.example", database="shop"
    )
    for config in (
        Config.from_url(url),
        Config.from_url(URL, replicas=[url]),
        Config.from_url(URL, replicas=[{"url": url}]),
    ):
        assert (config.replicas or [config.primary])[0].password == "p@ss/word"
    assert Config.from_url(URL, session_url=url).sessions()[0].password == "p@ss/word"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("r1, r2:6000 ,,r3", [("r1", 5432), ("r2", 6000), ("r3", 5432)]),
        ("postgresql://a:p,w@r1:6000/db,postgres://a:,@r2", [("r1", 6000), ("r2", 5432)]),
        ("postgresql://a:1,2@r1,r2:6000/db, r3", [("r1", 5432), ("r2", 6000), ("r3", 5432)]),
        ("r1,postgresql://r2,r3", [("r1", 5432), ("r2", 5432), ("r3", 5432)]),
        ("[::1]:6000,postgresql://a@[::2]:6000,[::3]?x=y",
         [("::1", 6000), ("::2", 6000), ("::3", 5432)]),
    ],
)  # fmt: skip
def test_replicas_as_one_text(text: str, found: list[tuple[str, int]]) -> None:
    """Commas part servers; those in a URL's password are its own, and so are those of hosts."""
    environ = {"PG_ROUTER_URL": "postgresql://p/db", "PG_ROUTER_REPLICAS": text}
    assert [(s.host, s.port) for s in Config.from_env(environ=environ).replicas] == found


def test_a_replica_may_have_parameters_of_its_own() -> None:
    """Beside the primary's, and over them; Django calls them OPTIONS."""
    mapping = {"host": "r", "params": {"sslmode": "require"}}
    (replica,) = Config.from_url("postgresql://p/db?sslmode=prefer&x=1", [mapping]).replicas
    assert replica.params == {"sslmode": "require", "x": "1"}
    database = {"HOST": "p", "REPLICAS": [{"HOST": "r", "OPTIONS": {"sslmode": "require"}}]}
    (replica,) = Config.from_django(database).replicas
    assert replica.params == {"sslmode": "require"}
    with pytest.raises(ConfigError, match=r"replicas\[0\].params: expected a mapping, not str"):
        Config.from_url(URL, [{"host": "r", "params": "sslmode=require"}])


def test_secrets_among_the_parameters_are_masked() -> None:
    """explain() shows connection parameters, but none that is a secret."""
    config = Config.from_url("postgresql://h/db?sslmode=require&sslpassword=s3cret&user=u")
    (shown,) = [value for name, value, _ in config.explain().rows if name == "primary.params"]
    assert shown == "sslmode=require sslpassword=***"
    assert config.primary.user == "u"


# -- precedence --------------------------------------------------------------------------------


def test_arguments_over_environment_over_file_over_libpq(tmp_path: Path) -> None:
    """What is nearer to the code wins, and each value tells which of them it was."""
    said = ["[pg-router]", 'url = "postgresql://p/db"']
    said += [f"{name} = 1" for name in ("pin_max", "probe_timeout", "pin_duration")]
    path = toml(tmp_path, "\n".join(said))
    environ = {
        "PG_ROUTER_PIN_MAX": "2",
        "PG_ROUTER_PIN_DURATION": "2",
        "PGUSER": "app",
        "PGDATABASE": "never",
    }
    config = Config.from_toml(path, prefix="PG_ROUTER_", environ=environ, pin_max=3)
    assert (config.pin_max, config.pin_duration, config.probe_timeout) == (3, 2, 1)
    assert (config.primary.user, config.primary.dbname) == ("app", "db")
    found = origins(config)
    assert found["pin_max"][1] == "argument pin_max"
    assert found["pin_duration"][1] == "PG_ROUTER_PIN_DURATION"
    assert found["probe_timeout"][1].endswith("[pg-router] probe_timeout")
    assert found["primary.user"][1] == "PGUSER"


def test_a_key_wins_over_the_url_beside_it() -> None:
    """Within one source what is said for itself counts more than what the URL holds."""
    mapping = {"url": URL + "?pin_max=1", "pin_max": 2, "password": "other"}
    config = Config.from_mapping(mapping)
    assert (config.pin_max, config.primary.password) == (2, "other")


def test_another_host_does_not_get_the_credentials(tmp_path: Path) -> None:
    """A URL that wins over a file's takes nothing of that server's address, its password least."""
    path = toml(tmp_path, f'[pg-router]\nurl = "{URL}"\n')
    environ = {"PG_ROUTER_URL": "postgresql://q.example/x"}
    config = Config.from_toml(path, prefix="PG_ROUTER_", environ=environ)
    assert (config.primary.host, config.primary.user, config.primary.password) == (
        "q.example", "", "",
    )  # fmt: skip


def test_a_config_is_changed_by_arguments_beside_it() -> None:
    """but() checks like everything else, keeps the rest, and the old Config is what it was."""
    config = Config.from_url(URL, replicas=["r1"], pin_max=5)
    other = config.but(pin_max=6)
    assert (other.pin_max, other.replicas, config.pin_max) == (6, config.replicas, 5)
    assert [s.host for s in config.but(replicas=["r2"]).replicas] == ["r2"]
    with pytest.raises(ConfigError, match="did you mean 'pin_max'"):
        config.but(pin_mxa=6)
    with pytest.raises(ConfigError, match="host: a Config has its primary"):
        config.but(host="q")


# -- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Config.from_env(environ={}), "PG_ROUTER_URL: no host"),
        (lambda: Config.from_env("X_", environ={"X_URL": URL, "X_PIN_MXA": "1"}),
         "X_PIN_MXA: unknown option 'pin_mxa' (did you mean 'pin_max'?)"),
        (lambda: Config.from_env("X_", environ={"X_URL": URL, "X_PIN_MAX": "soon"}),
         "X_PIN_MAX: pin_max: 'soon' is not a number"),
        (lambda: Config.from_env("X_", environ={"X_URL": "mysql://u:s3cret@h/d"}),
         "X_URL: 'mysql://u:***@h/d' is not a PostgreSQL URL"),
        (lambda: Config.from_env("X_", environ={"X_URL": URL, "X_REPLICAS": "a@s3cret"}),
         "X_REPLICAS: replicas[0]: expected 'host' or 'host:port'"),
        (lambda: Config.from_env("X_", environ={"X_URL": URL, "X_PIN_MAX": URL}),
         "X_PIN_MAX: pin_max: 'postgresql://app:***@p.example/shop' is not a number"),
        (lambda: Config.from_mapping({"ulr": URL, "host": "h"}), "(did you mean 'url'?)"),
        (lambda: Config.from_mapping({"host": "h", "params": "x"}), "params: expected a mapping"),
        (lambda: Config.from_url(URL + "?router_pin_mxa=1"), "did you mean 'pin_max'"),
        (lambda: Config.from_url("postgresql://h1,h2/db?target_session_attrs=master"),
         "'master' is none of any, "),
        (lambda: Config.from_toml("/none.toml"), "/none.toml: No such file or directory"),
        (lambda: Config.from_url(URL, schema="x-y"), "schema: 'x-y' is no name of letters"),
        (lambda: Config.from_url(URL, pgbouncer="maybe"), "pgbouncer: 'maybe' is none of trans"),
        (lambda: Config.from_url(URL, session_url="x"), "session_url: the text is not a Postg"),
        (lambda: Config.from_url(URL, session_url="postgresql://u:s3cret@/d"),
         "session_url: it names no host"),
        (lambda: Config.from_url(URL + "?pin_mxa=1"), "url: unknown option 'pin_mxa' (did you me"),
        (lambda: Config.from_url(URL + "?pin_max=1&pin_max=2"), "url: pin_max: given 2 times"),
        (lambda: Config.from_url("s3cret"), "url: the text is not a PostgreSQL URL"),
        (lambda: Config.from_url("postgresql:/u:s3cret@h/d"), "the text is not a PostgreSQL URL"),
        (lambda: Config.from_mapping({"url": b"postgresql://h"}), "expected a URL as text, not b"),
        (lambda: Config.from_url("postgresql://u:s3\tcret@h/d"), "percent-encode"),
        (lambda: Config.from_mapping({"ulr": URL}), "unknown option 'ulr' (did you mean 'url'?)"),
        (lambda: Config.from_mapping({"URL": URL}), "unknown option 'URL' (did you mean 'url'?)"),
        (lambda: Config.from_mapping(YAML), "unknown option 1 (known: "),
        (lambda: Config.from_env("X_", environ={"X_HOST": "h", "X_PORT": "x"}),
         "X_PORT: the text is no port: give 1 to 65535"),
        (lambda: Config.from_env("X_", environ={"X_URL": URL, "X_REPLICAS": '[{"host": "r"}]'}),
         "X_REPLICAS: replicas[0]: expected 'host'"),
        (lambda: Config.from_django({"HOST": "h", "REPLICA": []}),
         "DATABASES['default']['REPLICA']: no such key (did you mean 'REPLICAS'?)"),
        (lambda: Config.from_django({"HOST": "h", "REPLICAS": [{"host": "r"}]}),
         "REPLICAS'][0]: unknown key 'host' (did you mean 'HOST'?)"),
        (lambda: Config.from_url(URL, pool_size=3, max_connections=9), "pool_size: max_connect"),
        (lambda: Config.from_url(URL, workers=9, max_connections=8),
         "max_connections: 8 is not enough for 9 workers with a pool for each of 1 nodes: give 9"),
        (lambda: Config.from_url(URL, max_connections=8, discovery=list), "max_connections: with"),
        (lambda: Config.from_url(URL, max_overflow=-2), "max_overflow: -2 is less than -1"),
        (lambda: Config.from_url(URL, workers=0), "workers: 0 is less than 1: give 1 or more"),
        (lambda: Config.from_url(URL, pool_pre_ping="maybe"), "'maybe' is neither true nor"),
        (lambda: Config.from_libpq(environ={}), "PGHOST: no host"),
        (lambda: Config.from_libpq(environ={"PGHOST": "h", "PGHOSTADDR": "::1"}), "PGHOSTADDR: "),
        (lambda: Config.from_libpq("shop", environ={"PGSERVICEFILE": "/none"}),
         "service 'shop' is not in /none: name the file in PGSERVICEFILE"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_place_and_the_cure(make: Any, says: str) -> None:
    """One line: the variable or key, what is wrong, what may be, and never a password."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "section", "says"),
    [
        ("[pg_router]", "pg-router", "no table [pg-router] (did you mean 'pg_router'?)"),
        ("[tool.x]", "tool.pg-router", "no table [tool.pg-router] (known: x)"),
        ("url = ", "pg-router", "not TOML: "),
    ],
)
def test_a_file_without_the_table_is_refused(
    text: str, section: str, says: str, tmp_path: Path
) -> None:
    """The error names file and table, and the table that was perhaps meant."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        Config.from_toml(toml(tmp_path, text), section)


# -- service files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[shop]\nhost", "line 2 is not key=value: correct it"),
        ("[shop]\nhost = x", "line 2 is not key=value: correct it"),
        ("host=x", "service 'shop' is not in "),
        ("[shop]\nservice=other", "line 2: a service cannot name another"),
        ("[shop]\nhostaddr=::1", "hostaddr would send every node's connections to one server"),
        ("[shpo]\nhost=x", "(did you mean 'shpo'?)"),
    ],
)
def test_a_bad_service_file_is_refused(text: str, says: str, tmp_path: Path) -> None:
    """The error names the file, the line and the cure."""
    path = tmp_path / "services"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        Config.from_libpq("shop", environ={"PGSERVICEFILE": str(path)})


def test_libpq_reads_services_and_variables_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defaults libpq itself finds in an environment are what the router finds there."""
    path = tmp_path / "services"
    path.write_text(
        "#[shop]\n[other]\nhost=never\n[shop]\n host=p.example \nport=6000\npassword= s3 = cret\n"
        "user=app\n[shop]\nhost=second\n"
    )
    for name, value in {"PGSERVICEFILE": str(path), "PGSERVICE": "shop", "PGHOST": "never",
                        "PGDATABASE": "shop"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    theirs = {o.keyword.decode(): o.val.decode() for o in pq.Conninfo.get_defaults() if o.val}
    primary = Config.from_libpq().primary
    for name in libpq.VARIABLES.values():
        assert str(getattr(primary, name)) == theirs[name], name


# -- what others wrote -------------------------------------------------------------------------

MEDIAFUSION = {"POSTGRES_URI": URL}


@pytest.mark.parametrize(
    "said",
    [
        Config.from_mediafusion({"POSTGRES_URI": URL, "POSTGRES_USE_PGBOUNCER": "true"}),
        Config.from_horsies(
            {
                "database_url": URL,
                "pgbouncer_transaction_mode": True,
                "session_database_url": URL,
            },
            "worker",
        ),
    ],
    ids=["mediafusion", "horsies"],
)
def test_pgbouncer_as_mediafusion_and_horsies_say_it(said: Config) -> None:
    """Their words for it mean pooling by transaction; Horsies' session URL is ours."""
    assert said.pooling(said.primary) == "transaction"
    assert said.session_url in (None, URL)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "POSTGRES_URI: not set"),
        ({"POSTGRES_URI": URL, "POSTGRES_READ_URL": URL}, "did you mean 'POSTGRES_READ_URI'"),
        ({"POSTGRES_URI": URL, "DB_MAX_CONECTIONS": "5"}, "did you mean 'DB_MAX_CONNECTIONS'"),
        ({"POSTGRES_URI": URL, "POSTGRES_USE_PGBOUNCER": "x"}, "POSTGRES_USE_PGBOUNCER: pgbounc"),
        ({"POSTGRES_URI": URL, "GUNICORN_WORKERS": "x"}, "GUNICORN_WORKERS: workers: 'x' is not"),
    ],
)
def test_mediafusions_mistakes(environ: dict[str, str], says: str) -> None:
    """An error names MediaFusion's variable, as its administrator knows it."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        Config.from_mediafusion(environ)


def test_mediafusions_variables_beside_others() -> None:
    """Docker's own variables are left alone, empty ones count as unset, and defaults are there."""
    environ = {
        **MEDIAFUSION,
        "POSTGRES_USER": "x",
        "POSTGRES_READ_URI": "",
        "POSTGRES_USE_PGBOUNCER": "false",
    }
    config = Config.from_mediafusion(environ)
    assert config.pool_options() == {"pool_size": 16, "max_overflow": 0}
    assert origins(config)["workers"] == (3, "MediaFusion's default for GUNICORN_WORKERS")


HORSIES = {"database_url": "postgresql+psycopg://app:s3cret@p.example/shop"}


@pytest.mark.parametrize(
    ("part", "fields", "size", "overflow"),
    [
        ("broker", {}, 5, 10),
        ("worker", {}, 3, 2),
        ("worker", {"worker_pool_size": None, "worker_max_overflow": None}, 5, 10),
        ("child", {}, 2, 0),
        ("child", {"worker_child_pool_max_size": 1}, 1, 0),
    ],
)
def test_horsies_pools_by_part(
    part: Any, fields: dict[str, Any], size: int, overflow: int
) -> None:
    """Each part of Horsies has the pool its fields give it, None inherits the broker's."""
    config = Config.from_horsies({**HORSIES, **fields}, part)
    assert config.pool_options() == {
        "pool_size": size, "max_overflow": overflow, "pool_timeout": 30, "pool_recycle": 1800,
        "pool_pre_ping": True, "echo": False,
    }  # fmt: skip


def test_horsies_keepalives_are_the_routers() -> None:
    """Horsies' keepalive defaults are what every node has anyway; others become parameters."""
    plain = Config.from_horsies(HORSIES)
    assert plain.primary.params == {}
    assert (plain.libpq()["keepalives_idle"], plain.libpq()["keepalives_interval"]) == (30, 10)
    assert plain.libpq()["keepalives_count"] == 3
    off = Config.from_horsies({**HORSIES, "tcp_keepalives": False})
    assert off.primary.params == {"keepalives": "0"}
    own = Config.from_horsies({**HORSIES, "tcp_keepalives_idle": 60})
    assert own.primary.params == {"keepalives_idle": "60"}


@pytest.mark.parametrize(
    ("part", "fields", "says"),
    [
        ("broker", {"database_url": ""}, "database_url: required"),
        ("broker", {"pool_sise": 5}, "unknown field 'pool_sise' (did you mean 'pool_size'?)"),
        ("worker", {"pgbouncer_transaction_mode": True}, "session_database_url: a worker needs"),
        ("child", {"worker_child_pool_min_size": 1}, "worker_child_pool_min_size: connections"),
        ("broker", {"tcp_keepalives": "no"}, "tcp_keepalives: 'no' is neither True nor False"),
        ("web", {}, "part: 'web' is none of broker, worker, child"),
    ],
)
def test_horsies_mistakes(part: Any, fields: dict[str, Any], says: str) -> None:
    """An error names Horsies' field; a worker behind PgBouncer must have a session URL."""
    with pytest.raises(ConfigError, match=re.escape(says)):
        Config.from_horsies({**HORSIES, **fields}, part)


def test_no_mode_is_inferred_from_a_port() -> None:
    """PgBouncer's usual port says nothing: the Config is that of any other port."""
    usual = Config.from_url("postgresql://p.example:6432/shop")
    other = Config.from_url("postgresql://p.example:5432/shop")
    assert usual.pool_options() == other.pool_options()
    assert usual.prepared_statements is other.prepared_statements is None


def makara(*connections: dict[str, Any], **options: Any) -> dict[str, Any]:
    rails = ("pool", "adapter", "encoding")
    block: dict[str, Any] = {key: options.pop(key) for key in rails if key in options}
    return {**block, "makara": {**options, "connections": list(connections)}}


MASTER = {"role": "master", "url": URL, "blacklist_duration": 0}


def test_makaras_settings_are_the_routers() -> None:
    """Durations, weights, names, strategies and the pool's size mean what they mean there."""
    block = makara(
        MASTER,
        {"role": "slave", "host": "r1", "weight": 2, "name": "big"},
        {"role": "replica", "url": "postgresql://ro:x@r2", "blacklist_duration": 7},
        master_strategy="failover", id="shop", master_ttl=3,
        blacklist_duration=9, slave_strategy="failover", pool=12,
        sticky=False,
    )  # fmt: skip
    config = Config.from_makara(block)
    one, two = config.replicas
    assert (one.name, one.weight, one.priority, one.password) == ("big", 2, 0, "s3cret")
    assert (two.user, two.dbname, two.priority, two.blacklist_duration) == ("ro", "shop", 1, 7)
    assert (config.cluster, config.pin_duration, config.blacklist_duration) == ("shop", 3, 9)
    assert config.consistency == "off"
    assert config.pool_options() == {"pool_size": 12, "max_overflow": 0}
    assert config.primary.blacklist_duration == 0
    block["makara"] |= {"sticky": True, "slave_strategy": "round_robin", "disable_blacklist": True}
    config = Config.from_makara(block)
    assert (config.consistency, config.balance) == ("lsn", "round_robin")
    assert config.blacklist_duration == 0


# -- a replica of another database --------------------------------------------------------------

OTHER = "postgresql://r1/postgres"


def ini_other(tmp_path: Path) -> Config:
    path = tmp_path / "pgbouncer.ini"
    path.write_text(
        "[databases]\nshop = host=p\nreport = host=r1\nother = host=r2 dbname=postgres\n"
        "right = host=r1 dbname=shop\n[pgbouncer]\n"
    )
    Config.from_pgbouncer_ini(path, "shop", ["right"])
    with pytest.raises(ConfigError, match=r"\[databases\] report: it leads to .*'report'.*'shop'"):
        Config.from_pgbouncer_ini(path, "shop", ["report"])
    return Config.from_pgbouncer_ini(path, "shop", ["right", "other"])


def service_other(tmp_path: Path) -> Config:
    services = tmp_path / "services"
    services.write_text("[shop]\nhost=p\ndbname=shop\n[ro]\nhost=r1\ndbname=postgres\n")
    environ = {"PGSERVICEFILE": str(services), "PGSERVICE": "shop"}
    return Config.from_libpq(environ=environ, replicas=["service=ro"])


def toml_other(tmp_path: Path) -> Config:
    replicas = '["r2", {host = "r1", dbname = "postgres"}]'
    text = f'[pg-router]\nurl = "{URL}"\nreplicas = {replicas}\n'
    return Config.from_toml(toml(tmp_path, text))


def environment_other(_: Path) -> Config:
    replicas = {"PG_ROUTER_REPLICAS": f"r2,{OTHER}"}
    return Config.from_env(environ={"PG_ROUTER_HOST": "p", "PGDATABASE": "shop", **replicas})


def makara_other(_: Path) -> Config:
    slave = {"role": "slave", "host": "r1", "database": "postgres"}
    return Config.from_makara(makara(MASTER, slave))


ASTRAY: dict[str, tuple[Any, str]] = {
    "arguments": (lambda _: Config.from_url(URL, ["r2", OTHER]), "replicas[1]"),
    "query": (lambda _: Config.from_url(f"{URL}?replica={OTHER}"), "url: replicas[0]"),
    "beside": (lambda _: Config.from_url(URL, "r2").but(replicas=[OTHER]), "replicas[0]"),
    "mode taken back": (
        lambda _: Config.from_url(URL, OTHER, pgbouncer=True).but(pgbouncer="off"),
        "replicas[0]",
    ),
    "mapping": (
        lambda _: Config.from_mapping({"R_URL": URL, "R_REPLICAS": [OTHER]}, prefix="R_"),
        "R_REPLICAS: replicas[0]",
    ),
    "environment": (environment_other, "PG_ROUTER_REPLICAS: replicas[1]"),
    "toml": (toml_other, "shop.toml [pg-router] replicas: replicas[1]"),
    "service": (service_other, "replicas[0]"),
    "makara": (makara_other, "makara.connections: replicas[0]"),
    "mediafusion": (
        lambda _: Config.from_mediafusion({"POSTGRES_URI": URL, "POSTGRES_READ_URI": OTHER}),
        "POSTGRES_READ_URI: replicas[0]",
    ),
    "horsies": (
        lambda _: Config.from_horsies({"database_url": URL}, replicas=[OTHER]),
        "replicas[0]",
    ),
    "django": (
        lambda _: Config.from_django({"HOST": "p", "NAME": "shop", "REPLICAS": ["r2", OTHER]}),
        "DATABASES['default']['REPLICAS']: replicas[1]",
    ),
    "pgbouncer.ini": (ini_other, "[databases] other"),
    "session_url": (
        lambda _: Config.from_url(URL, session_url="postgresql://p.example/postgres"),
        "session_url",
    ),
}


@pytest.mark.parametrize("way", ASTRAY)
def test_another_database_is_refused(way: str, tmp_path: Path) -> None:
    """Wherever a replica, or session_url, names another database than the primary, the error names
    the place, both databases and the cure."""
    make, where = ASTRAY[way]
    with pytest.raises(ConfigError) as caught:
        make(tmp_path)
    said = str(caught.value)
    assert f"{where}: it " in said
    assert "'shop'" in said
    assert "'postgres'" in said
    assert "name 'shop'" in said or "give it dbname=shop" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("url", "replica", "options"),
    [
        (URL, "postgresql://r1/shop_ro", {"pgbouncer": True}),
        (URL, "postgresql://r1/shop_ro", {"pgbouncer": "session"}),
        (URL, {"url": "postgresql://r1/shop_ro", "pgbouncer": True}, {}),
        (URL, "postgresql://r1/shop_ro?pgbouncer=true", {}),
        # Only what stands in between can tell two servers at one address apart.
        ("postgresql://b:6432/shop", "postgresql://b:6432/shop_ro", {}),
        # What a driver opens where no database is named, it knows alone.
        ("postgresql://app@p", "postgresql://r1/app", {}),
        (URL, "postgresql://ro@r1", {}),
        (URL, "r1", {"pgbouncer": True, "session_url": "postgresql://p/real"}),
    ],
)
def test_names_that_may_differ(url: str, replica: Any, options: dict[str, Any]) -> None:
    """Behind a pooler a database may have any name, and one that is left out is not another."""
    assert Config.from_url(url, [replica], **options).replicas


def test_makaras_url_wins_over_what_stands_beside_it() -> None:
    """What the URL leaves out is the connection's or the block's, as Rails merges them."""
    master = {"role": "master", "url": "postgresql://h:6000/db?sslmode=require", "database": "x"}
    block = {**makara(master), "username": "app", "password": "s3cret", "sslcert": "c", "port": 7}
    primary = Config.from_makara(block).primary
    assert (primary.host, primary.port, primary.dbname) == ("h", 6000, "db")
    assert (primary.user, primary.password) == ("app", "s3cret")
    assert primary.params == {"sslcert": "c", "sslmode": "require"}


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({"production": makara(MASTER)}, "makara: the block has no such section: give one"),
        (makara({"role": "slave", "url": URL}), "makara.connections: 0 of them have the role"),
        (makara(MASTER, MASTER), "makara.connections: 2 of them have the role master"),
        (makara(MASTER, {"role": "slvae"}), "connections[1].role: 'slvae' is none of master"),
        (makara(MASTER, {"roel": "slave"}), "connections[1].roel: unknown key 'roel' (did you"),
        (makara(MASTER, stikcy=True), "makara.stikcy: unknown key 'stikcy' (did you mean 'sti"),
        (makara(MASTER, slave_strategy="best"), "'best' is none of round_robin, failover"),
        (makara(MASTER, connection_error_matchers=["x"]), "told apart by SQLSTATE, not by"),
        (makara(MASTER, adapter="mysql2_makara"), "adapter: 'mysql2_makara' is not Makara's"),
        (makara(MASTER, encoding="latin1"), "encoding: 'latin1': drivers use UTF-8"),
        ({"makara": {"connections": "x"}}, "makara.connections: expected a list of mappings"),
        (makara(MASTER, pool="<%= ENV['DB_POOL'] %>"), "pool: pool_size: \"<%= ENV['DB_POOL'] %>"),
    ],
)
def test_makaras_mistakes(block: dict[str, Any], says: str) -> None:
    """An error names the key of the YAML file."""
    with pytest.raises(ConfigError) as caught:
        Config.from_makara(block)
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)


_values = {
    "pin_max": st.floats(0, 1e6),
    "max_lag_bytes": st.none() | st.integers(0, 2**40),
    "consistency": st.sampled_from(["lsn", "time", "off"]),
    "reads_in_transaction": st.booleans(),
    "pool_pre_ping": st.none() | st.booleans(),
    "workers": st.integers(1, 99),
    "read_functions": st.lists(st.from_regex(r"\A[a-z_.]{1,8}\Z"), max_size=3).map(tuple),
    "name": st.from_regex(r"\A[a-z ]{1,8}\Z"),
}


@given(st.fixed_dictionaries({}, optional=_values))
def test_options_are_the_same_as_text_and_as_values(options: dict[str, Any]) -> None:
    """What Python, TOML and the environment can say alike gives equal Configs."""

    def text(value: Any) -> str:
        return ",".join(value) if isinstance(value, tuple) else str(value)

    def line(key: str, value: Any) -> str:
        if isinstance(value, bool):
            return f"{key} = {str(value).lower()}"
        return f"{key} = {list(value) if isinstance(value, tuple) else value!r}"

    direct = Config.from_url(URL, **options)
    environ = {"X_URL": URL} | {f"X_{key.upper()}": text(v) for key, v in options.items()}
    assert Config.from_env("X_", environ=environ) == direct
    lines = [line(key, value) for key, value in options.items() if value is not None]
    table = tomllib.loads("\n".join(lines))
    kept = {key: None for key, value in options.items() if value is None}
    assert Config.from_mapping({"url": URL, **table, **kept}) == direct


def test_the_command_lines_own_variable_is_no_option() -> None:
    """The status page's token may stand in the environment that configures the application."""
    environ = {"PG_ROUTER_URL": URL, "PG_ROUTER_STATUS_TOKEN": "sixteen-or-more-characters"}
    assert Config.from_env(environ=environ) == Config.from_env(environ={"PG_ROUTER_URL": URL})
