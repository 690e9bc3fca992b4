"""URLs that name several hosts, as libpq takes them."""

from typing import Any

import pytest
import sqlalchemy as sa

import router
from router.errors import ConfigError
from tests.sqlalchemy.kit import Routed, insert
from tests.sqlalchemy.test_membership import ports


def addresses(url: Any, **options: Any) -> list[tuple[str, str, int]]:
    engine = router.create_engine(url, **options)
    return [(n.name, n.host, n.port) for n in engine.router.snapshot.nodes]


HOSTS = [("h1", "h1", 5432), ("h2", "h2", 5433), ("h3", "h3", 5432)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:se%2Ccret@h1,h2:5433,h3/shop",
        "postgres://app@h1:5432,h2:5433,h3:5432/shop?connect_timeout=3",
        "postgresql+psycopg://app@/shop?host=h1:5432&host=h2:5433&host=h3",
        "postgresql+psycopg://app@/shop?host=h1,h2,h3&port=5432,5433,5432",
        sa.make_url("postgresql+psycopg://app@/shop?host=h1&host=h2:5433&host=h3"),
    ],
)
def test_every_spelling_gives_one_node_for_each_host(url: Any) -> None:
    """Hosts and their ports are told apart in libpq's and in SQLAlchemy's spelling."""
    assert addresses(url) == HOSTS


def test_addresses_that_look_alike_get_names_of_their_own() -> None:
    """Several servers on one host are named with their ports; IPv6 is understood."""
    assert addresses("postgresql://h1:5432,h1:5433/shop") == [
        ("h1:5432", "h1", 5432), ("h1:5433", "h1", 5433),
    ]  # fmt: skip
    found = addresses("postgresql://[::1]:5433,[::2]/shop")
    assert [(host, port) for _, host, port in found] == [("::1", 5433), ("::2", 5432)]


@pytest.mark.parametrize(
    "url",
    [
        "postgres://%2Frun%2FPG:5433/shop",
        "postgres+psycopg://app@%2Frun%2FPG:5433/shop",
        "postgresql://app@/shop?host=/run/PG&port=5433",
        sa.make_url("postgresql+psycopg://app@%2Frun%2FPG:5433/shop"),
    ],
)
def test_a_socket_directory_is_a_host(url: Any) -> None:
    """Percent-encoded or as a parameter, and with either spelling of the scheme."""
    assert addresses(url) == [("primary", "/run/PG", 5433)]


@pytest.mark.parametrize(
    "replicas",
    [["h2:5433,h3"], ["postgresql://h2:5433,h3/shop"], [{"url": "postgresql://h2:5433,h3/shop"}],
     "h2:5433,h3"],
)  # fmt: skip
def test_an_entry_of_replicas_may_name_several(replicas: Any) -> None:
    """Each host of an entry is a replica."""
    found = addresses("postgresql://h1/shop", replicas=replicas)
    assert [(host, port) for _, host, port in found] == [(h, p) for _, h, p in HOSTS]


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("postgresql+psycopg://@/db?host=h1,h2,h3&port=1,2", {}, "3 hosts and 2 ports"),
        ("postgresql://h1,h2/db?target_session_attrs=master", {}, "'master' is none of any, "),
        ("postgresql://h1/db", {"replicas": [{"url": "postgresql://h2,h3/db", "name": "x"}]},
         "'x' is taken"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused(url: str, options: dict[str, Any], says: str) -> None:
    """What cannot be told apart is refused when the engine is made."""
    with pytest.raises(ConfigError, match=says):
        router.create_engine(url, **options)


def test_one_server_is_added_at_a_time() -> None:
    """add_replica() takes one host, and says so."""
    engine = router.create_engine("postgresql://h1/db", replicas=["h2"])
    with pytest.raises(ConfigError, match="names several hosts: give one"):
        engine.router.add_replica("postgresql://h3,h4/db")


@pytest.mark.parametrize("attrs", ["any", "primary", "read-write", "prefer-standby", "standby"])
def test_roles_are_found_whatever_the_order(routed: Routed, attrs: str) -> None:
    """The primary may stand anywhere in the list; writes find it and reads the others, and no
    node's connection is refused for the role the parameter asks for."""
    cluster = routed.cluster
    one, two = cluster.replicas
    hosts = ",".join(f"{s.host}:{s.port}" for s in (one, cluster.primary, two))
    url = f"postgresql://postgres@{hosts}/{routed.dbname}?target_session_attrs={attrs}"
    engine = routed.another(url=url, replicas=[])
    with engine.begin() as connection:
        insert(connection)
        assert connection.scalar(sa.text("SELECT inet_server_port()")) == cluster.primary.port
    assert ports(engine) == {one.port, two.port}
    fallback = "error" if attrs == "standby" else "primary"
    assert engine.router.config.fallback == fallback


def test_a_single_hosts_parameter_does_not_reach_the_replicas(routed: Routed) -> None:
    """target_session_attrs=primary in the engine's URL is not asked of its replicas."""
    url = routed.cluster.primary.url(routed.dbname) + "?target_session_attrs=primary"
    engine = routed.another(url=url)
    assert ports(engine) <= {r.port for r in routed.cluster.replicas}
