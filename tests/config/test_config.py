"""What may be configured, what is refused with its cure, and that no password ever shows."""

from dataclasses import fields
from inspect import cleandoc
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config.config import Config
from router.config.options import OPTIONS
from router.config.server import Server, replica_server
from router.errors import ConfigError
from router.messages import masked
from router.model import Limits, Role

PRIMARY = Server("p.example", 6432, "app", "s3cret", "shop", "psycopg", {"sslmode": "require"})
URL = "postgresql://app:s3cret@p.example/shop"

# no letter of the messages around it, so that a trace of it cannot be there by chance
passwords = st.text(st.sampled_from("QZ7%@:/?#&=+ '\"\\[]€"), min_size=3, max_size=20).filter(
    lambda text: any(c in "QZ7€" for c in text)
)


# -- options -----------------------------------------------------------------------------------


def test_every_option_says_what_it_may_be() -> None:
    """What an option may be is said for each attribute of Config that is one, in its order."""
    servers = ("primary", "replicas", "sources")
    assert [f.name for f in fields(Config) if f.name not in servers] == list(OPTIONS)


# -- URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://h", Server("h")),
        ("postgres://h:6000/db", Server("h", 6000, dbname="db")),
        ("postgresql+psycopg://u:p@h/db", Server("h", 5432, "u", "p", "db", "psycopg")),
        ("postgres+asyncpg://u@h", Server("h", user="u", driver="asyncpg")),
        ("postgresql://[::1]:6000/db", Server("::1", 6000, dbname="db")),
        ("postgresql://u:p@[2001:db8::1]/db", Server("2001:db8::1", 5432, "u", "p", "db")),
        ("postgresql:///db?host=/var/run/PG", Server("/var/run/PG", dbname="db")),
        ("postgresql:///db?host=/run&port=6000", Server("/run", 6000, dbname="db")),
        ("postgresql://u@%2Ftmp%2FMySockets/db", Server("/tmp/MySockets", 5432, "u", dbname="db")),
        ("postgresql://a%40b:p%40s%2Fs%3A@h/d%20b", Server("h", 5432, "a@b", "p@s/s:", "d b")),
        ("postgresql://u:@h", Server("h", user="u")),
        ("postgresql://a@azure:pw@h/db", Server("h", 5432, "a@azure", "pw", "db")),
        ("postgresql://h?sslmode=require", Server("h", params={"sslmode": "require"})),
    ],
)
def test_a_url_is_read(url: str, expected: Server) -> None:
    """Each part of a PostgreSQL URL is found where libpq and SQLAlchemy find it."""
    found = Server.parse(url, "url")
    assert found == expected
    assert (found.password, found.params) == (expected.password, expected.params)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), passwords)
def test_whatever_is_percent_encoded_comes_back(user: str, dbname: str, password: str) -> None:
    """User, password and database survive being encoded, whatever they hold."""
    parts = [quote(part, safe="") for part in (user, password, dbname)]
    server = Server.parse("postgresql://{}:{}@h/{}".format(*parts), "url")
    assert (server.user, server.password, server.dbname) == (user, password, dbname)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u:s3cret@h/db", "is not a PostgreSQL URL: expected postgresql://"),
        ("h:5432", "is not a PostgreSQL URL"),
        ("host=h password=s3cret", "is not a PostgreSQL URL"),
        ("host=h password='s3 cret' user=u", "is not a PostgreSQL URL"),
        ("postgresql://u:s3cret@/db", "names no host: write postgresql://"),
        ("postgresql://u:s3cret@h:port/db", "the port must be a number"),
        ("postgresql://u:s3cret@h:99999/db", "the port must be a number"),
        ("postgresql://u:s3/cret@h/db", "percent-encode"),
        ("postgresql://u:3/s3cret@h/db", "percent-encode"),
        ("postgresql://u:3#s3cret@h/db", "percent-encode"),
        ("postgresql://u:s3#cret@h/db", "percent-encode"),
        ("postgresql://u:s3cret℀@h/db", "percent-encode"),
        ("postgresql://u:s3cret@h?port=x", "the text is no port"),
        ("postgresql:///db?host=h&port=x", "the text is no port"),
        ("postgresql://u:s3cret@h:0/db", "'0' is no port: give 1 to 65535"),
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str, says: str) -> None:
    """The error is one line: the key, what is wrong, the cure, and no letter of the password."""
    if "port=x" in url and "///" not in url:
        url = url.replace("h?", "?host=h&")
    with pytest.raises(ConfigError) as caught:
        Server.parse(url, "replicas[0]")
    text = str(caught.value)
    assert text.startswith("replicas[0]: ")
    assert says in text
    assert "\n" not in text
    assert "s3" not in text
    assert "cret" not in text


# -- passwords ---------------------------------------------------------------------------------


def unseen(password: str, text: str) -> bool:
    """Whether not even the telling letters of `password` are in `text`."""
    return not set(text) & set("QZ7€") and password not in text


@given(passwords, st.sampled_from(["u", "", "a@b"]), st.booleans())
def test_no_password_of_a_url_shows(password: str, user: str, encoded: bool) -> None:
    """Encoded or as typed, with whatever signs in it, a URL's password is masked whole."""
    shown = quote(password, safe="") if encoded else password
    text = masked(f"could not connect to postgresql+psycopg://{user}:{shown}@h.example:5432/db")
    assert unseen(shown, text)
    assert text.startswith("could not connect to postgresql+psycopg://")
    assert text.endswith("***@h.example:5432/db")


@given(passwords, st.sampled_from(["password", "PASSWORD", "sslpassword", "PGPASSWORD"]))
def test_no_password_of_a_key_value_text_shows(password: str, key: str) -> None:
    """Quoted as libpq quotes, escaped without quotes, or in a query: masked whole."""
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    assert masked(f"host=h {key} = '{quoted}' user=u") == f"host=h {key} = *** user=u"
    escaped = "".join("\\" + c if c in " '\"\\" else c for c in password)
    assert masked(f"host=h {key}={escaped} user=u") == f"host=h {key}=*** user=u"
    assert unseen(password, masked(f"postgresql://h/db?{key}={quote(password, safe='')}"))
    assert unseen(password, masked(f"host=h {key}='{quoted}"))


@pytest.mark.parametrize(
    "text",
    ["connection to server at h failed", "postgresql://h:5432/db", "postgresql://[::1]:5432/db",
     'FATAL: password authentication failed for user "u"', "postgresql://u@h/db"],
)  # fmt: skip
def test_a_text_without_a_password_is_left_alone(text: str) -> None:
    """Messages that hold no secret are shown as they are."""
    assert masked(text) == text


@given(passwords)
def test_no_repr_holds_a_password(password: str) -> None:
    """Neither a Config nor a Server nor a Node shows a password, nor what may hold one."""
    encoded = quote(password, safe="")
    primary = Server.parse(f"postgresql://u:{encoded}@h/db?sslpassword={encoded}", "url")
    config = Config.build(primary, [{"host": "a", "password": password}])
    for value in (primary, config, config.replicas, config.nodes(), config.servers()):
        assert unseen(password, repr(value))


# -- replicas ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "port", "user", "password", "dbname"),
    [
        ("r.example", "r.example", 6432, "app", "s3cret", "shop"),
        ("r.example:7000", "r.example", 7000, "app", "s3cret", "shop"),
        ("[::1]:7000", "::1", 7000, "app", "s3cret", "shop"),
        ("[::1]", "::1", 6432, "app", "s3cret", "shop"),
        ("::1", "::1", 6432, "app", "s3cret", "shop"),
        ("/var/run/pg", "/var/run/pg", 6432, "app", "s3cret", "shop"),
        ("postgresql://r.example", "r.example", 5432, "app", "s3cret", "shop"),
        ("postgresql://ro:x@r.example/other", "r.example", 5432, "ro", "x", "other"),
        ("postgresql://ro@r.example", "r.example", 5432, "ro", "", "shop"),
        ({"host": "r", "port": "7000"}, "r", 7000, "app", "s3cret", "shop"),
        ({"host": "r", "user": "ro", "password": 123}, "r", 6432, "ro", "123", "shop"),
        ({"host": "r", "port": None, "weight": None}, "r", 6432, "app", "s3cret", "shop"),
        ({"url": "postgresql://r", "dbname": "other"}, "r", 5432, "app", "s3cret", "other"),
    ],
)
def test_a_replica_is_what_differs_from_the_primary(
    given: Any, host: str, port: int, user: str, password: str, dbname: str
) -> None:
    """A URL, ``host``, ``host:port`` or a mapping; what it leaves out is the primary's."""
    found = replica_server(given, "replicas[0]", PRIMARY)
    assert (found.host, found.port, found.user) == (host, port, user)
    assert (found.password, found.dbname) == (password, dbname)
    assert (found.driver, found.params["sslmode"]) == ("psycopg", "require")
    assert (found.name, found.weight, found.blacklist_duration) == ("", 1.0, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (5, "expected a URL, 'host:port' or a mapping, not int"),
        ({}, "no host: add 'host' or 'url'"),
        ({"url": None}, "no host: add 'host' or 'url'"),
        ({"hots": "r"}, "unknown key 'hots' (did you mean 'host'?)"),
        ({1: "r"}, "unknown key 1 (known: "),
        ({"host": "r", "port": "x"}, ".port: the text is no port: give 1 to 65535"),
        ({"host": "r", "port": 70000}, ".port: 70000 is no port: give 1 to 65535"),
        ({"host": "r", "weight": -1}, ".weight: -1 is negative: give 0 or more"),
        ({"host": "r", "weight": "nan"}, ".weight: 'nan' is not finite"),
        ({"host": "r", "weight": float("inf")}, ".weight: inf is not finite"),
        ({"host": "r", "blacklist_duration": "soon"}, ".blacklist_duration: 'soon' is not a"),
        ("r:x", "the text is no port"),
        ("r:0", "'0' is no port"),
        (":5432", "names no host: write 'host' or 'host:port'"),
        ("ro:s3cret@r", "written postgresql://user:password@host:port/dbname"),
        ("ro:s3cret@r:5432", "written postgresql://user:password@host:port/dbname"),
        ("host=r password=s3cret", "written postgresql://user:password@host:port/dbname"),
        ("mysql://ro:s3cret@r", "is not a PostgreSQL URL"),
        ("postgresql+asyncpg://r", "driver 'asyncpg' differs from the primary's 'psycopg'"),
    ],
)
def test_a_bad_replica_is_refused(given: Any, says: str) -> None:
    """The error names which replica and key, and the cure, and never the password."""
    with pytest.raises(ConfigError) as caught:
        Config.build(PRIMARY, ["ok", given])
    text = str(caught.value)
    assert text.startswith("replicas[1]")
    assert says in text
    assert "\n" not in text
    assert "s3cret" not in text


def test_replicas_may_be_one_text_with_commas() -> None:
    """As an environment variable gives them: separated by commas, empty ones left out."""
    config = Config.build(PRIMARY, "a,b:7000,")
    assert [(s.host, s.port) for s in config.replicas] == [("a", 6432), ("b", 7000)]
    assert Config.build(PRIMARY, "").replicas == ()


@pytest.mark.parametrize("given", [5, {"host": "a"}, None])
def test_replicas_that_are_no_list_are_refused(given: Any) -> None:
    """A single mapping or a number is no list of replicas."""
    with pytest.raises(ConfigError, match="replicas: expected a list of URLs"):
        Config.build(PRIMARY, given)


# -- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pin_duratoin": 5}, "unknown option 'pin_duratoin' (did you mean 'pin_duration'?)"),
        ({"xyz": 5}, "unknown option 'xyz' (known: "),
        ({"consistency": "strong"}, "consistency: 'strong' is none of lsn, time, off"),
        ({"fallback": True}, "fallback: True is none of primary, error"),
        ({"transactions": "eager"}, "transactions: 'eager' is none of primary, lazy"),
        ({"balance": "fast"}, "balance: 'fast' is none of weighted, random, round_robin, least_"),
        ({"balance": []}, "balance: [] is none of weighted, random, round_robin, least_outsta"),
        ({"pin_duration": "5s"}, "pin_duration: '5s' is not a number: give 0 or more"),
        ({"pin_duration": -1}, "pin_duration: -1 is negative: give 0 or more"),
        ({"probe_interval": "nan"}, "probe_interval: 'nan' is not finite"),
        ({"probe_interval": None}, "probe_interval: None is not a number"),
        ({"max_lag_bytes": float("inf")}, "max_lag_bytes: inf is not a number"),
        ({"reads_in_transaction": "maybe"}, "'maybe' is neither true nor false"),
        ({"read_functions": 5}, "read_functions: expected a list of strings, not int"),
        ({"read_patterns": ["("]}, "read_patterns: '(' is no regular expression"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], says: str) -> None:
    """The error is one line that names the option, what was given and what may be."""
    with pytest.raises(ConfigError) as caught:
        Config.build(PRIMARY, (), **options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_come_as_text_too() -> None:
    """A URL or the environment gives text: numbers, lists, truth and none are read from it."""
    config = Config.build(
        PRIMARY, (), pin_duration="2.5", max_lag_seconds="none", max_lag_bytes="1048576",
        reads_in_transaction="Yes", read_functions="f, public.g,", fallback="error",
        transactions="lazy", consistency="time",
    )  # fmt: skip
    assert config.limits() == Limits(None, 1048576, back=60.0)
    assert config.reads_in_transaction is True
    assert config.read_functions == ("f", "public.g")
    policy = config.policy()
    assert (policy.pin_duration, policy.consistency) == (2.5, "time")
    assert (policy.fallback, policy.lazy_transactions) == (False, True)


def test_an_empty_pattern_matches_nothing() -> None:
    """An empty environment variable must not make every statement a read."""
    config = Config.build(PRIMARY, (), read_patterns="", write_patterns=" , ")
    assert (config.read_patterns, config.write_patterns) == ((), ())


def test_every_option_has_a_valid_default_and_a_line_of_its_own() -> None:
    """What is documented is what there is, and each default passes its own check."""
    config = Config(primary=PRIMARY)
    defaults = {name: getattr(config, name) for name in OPTIONS}
    assert Config.build(PRIMARY, (), **defaults) == config
    # Python 3.13 takes the indentation out of a docstring itself.
    documented = cleandoc(Config.__doc__ or "")
    for name in OPTIONS:
        assert f"\n    {name}: " in documented


# -- nodes -------------------------------------------------------------------------------------


def test_nodes_are_named_and_the_primary_comes_first() -> None:
    """Default names count the replicas; a given name replaces one; the cluster has an id."""
    config = Config.build(PRIMARY, ["a", {"host": "b", "name": "far", "weight": 0.5}])
    assert [n.name for n in config.nodes()] == ["primary", "replica1", "far"]
    assert [n.role for n in config.nodes()] == [Role.PRIMARY, Role.REPLICA, Role.REPLICA]
    assert config.nodes()[2].weight == 0.5
    assert config.cluster == "p.example:6432/shop"
    assert Config.build(PRIMARY, (), name="shop").cluster == "shop"


def test_two_nodes_of_one_name_are_refused() -> None:
    """The error says which replica, which name, and what to do."""
    with pytest.raises(ConfigError, match=r"replicas\[1\]\.name: 'x' is taken .* name of its own"):
        Config.build(PRIMARY, [{"host": "a", "name": "x"}, {"host": "b", "name": "x"}])


def test_a_server_has_the_clusters_blacklist_duration_unless_its_own_is_said() -> None:
    """Also the one configured as the primary, which may be a replica by now."""
    config = Config.build(PRIMARY, ["a", {"host": "b", "blacklist_duration": 3}])
    assert [n.blacklist_duration for n in config.nodes()] == [None, None, 3.0]
