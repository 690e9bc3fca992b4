"""Who belongs to the cluster, as Patroni says it and as the Router takes it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from router.cluster.router import Router
from router.config.config import Config
from router.config.server import Server
from router.discovery import patroni
from router.errors import ConfigError, RouterError
from router.model import Lsn, Report, Role


def member(name: str, **more: Any) -> dict[str, Any]:
    """One member as Patroni documents it.

    Source: https://patroni.readthedocs.io/en/latest/rest_api.html#cluster-status-endpoints
    """
    role = "leader" if name == "patroni1" else "replica"
    return {
        "name": name, "role": role, "state": "running" if role == "leader" else "streaming",
        "api_url": "http://127.0.0.1:1/patroni", "host": f"{name}.example", "port": 5432,
        "timeline": 5, **more,
    }  # fmt: skip


@contextmanager
def rest_api(answer: Callable[[], tuple[int, Any]]) -> Iterator[str]:
    """A real HTTP server that speaks for Patroni; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer() if self.path == "/cluster" else (404, {})
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_patronis_members_become_servers() -> None:
    """Each member with an address is a server by its name; one spared from load has no weight,
    one still being made is left out."""
    members = [
        member("patroni1"),
        member("patroni2", lag=0, tags={"noloadbalance": True, "clonefrom": True}),
        {"name": "patroni3", "role": "replica", "state": "creating replica", "lag": "unknown"},
    ]
    with rest_api(lambda: (200, {"members": members, "scope": "demo"})) as url:
        assert patroni(url)() == [
            {"name": "patroni1", "host": "patroni1.example", "port": 5432, "weight": 1.0},
            {"name": "patroni2", "host": "patroni2.example", "port": 5432, "weight": 0.0},
        ]


def test_what_a_real_patroni_said_is_understood() -> None:
    """The recorded answer of Patroni 4.1.5 over three members gives three servers."""
    body = (Path(__file__).parent / "patroni_cluster.json").read_bytes()
    with rest_api(lambda: (200, body)) as url:
        found = [(m["name"], m["host"], m["port"], m["weight"]) for m in patroni(url)()]
    assert found == [
        ("pg1", "127.0.0.1", 39015, 1.0),
        ("pg2", "127.0.0.1", 44847, 1.0),
        ("pg3", "127.0.0.1", 39915, 0.0),
    ]


def test_the_first_address_that_answers_is_enough() -> None:
    """Refused, broken and empty answers are passed over; a member's own address serves later."""

    def first() -> tuple[int, Any]:
        # Only the first time does it know where the others are.
        return (200, {"members": [member("patroni1", api_url=f"{other}/patroni")]})

    with rest_api(lambda: (200, {"members": [member("patroni2")]})) as other:
        with (
            rest_api(lambda: (503, {})) as broken,
            rest_api(lambda: (200, b"<html>")) as page,
            rest_api(lambda: (200, {"members": []})) as empty,
            rest_api(first) as good,
        ):
            ask = patroni("http://127.0.0.1:1", broken, page, empty, good + "/")
            assert [m["name"] for m in ask()] == ["patroni1"]
        assert [m["name"] for m in ask()] == ["patroni2"]
    with pytest.raises(RouterError, match=r"patroni: no address answered \(http://127.0.0.1:\d+:"):
        ask()


@pytest.mark.parametrize("body", [[], {}, {"members": 5}, {"members": [{"host": "a", "port": 1}]},
                                  {"members": [member("a", port="x")]}, None])  # fmt: skip
def test_an_answer_of_another_shape_is_no_answer(body: Any) -> None:
    """Whatever JSON comes, the outcome is a list of servers or one RouterError."""
    with rest_api(lambda: (200, body)) as url, pytest.raises(RouterError, match="no address"):
        patroni(url)()


@pytest.mark.parametrize("urls", [(), ("db1:8008",), ("file:///etc/passwd",)])
def test_what_is_no_address_is_refused(urls: tuple[str, ...]) -> None:
    """An address that could never answer is refused when it is given."""
    with pytest.raises(ConfigError, match="patroni: "):
        patroni(*urls)


def site() -> Router:
    router = Router(Config.build(Server("p"), ["a", "b"]), clock=lambda: 1.0)
    for node in router.snapshot.nodes:
        answer(router, node.name, primary=node.name == "primary")
    return router


def answer(router: Router, name: str, *, primary: bool = False, timeline: int = 1) -> None:
    role = Role.PRIMARY if primary else Role.REPLICA
    router.observe(Report(name, 1.0, role, Lsn(9), timeline, "1", 0.0, True))


def names(router: Router) -> list[str]:
    return [n.name for n in router.snapshot.nodes]


def test_members_join_and_leave_by_their_address() -> None:
    """Known servers keep name and report, unknown ones join, missing ones leave."""
    router = site()
    kept = router.snapshot.node("replica1")
    router.membership.members(["p", {"host": "a", "name": "other"}, {"host": "c", "name": "new"}])
    assert names(router) == ["primary", "replica1", "new"]
    assert router.snapshot.node("replica1") is kept
    assert kept in router.replicas
    before = router.view
    router.membership.members([{"host": "c", "name": "new"}, "a", "p"])
    assert router.view is before


def test_a_members_share_is_taken_over() -> None:
    """Weight, zone and priority may change from one time to the next; what is known stays."""
    router = site()
    router.membership.members(["p", {"host": "a", "weight": 0, "zone": "z", "priority": 2}, "b"])
    node = router.snapshot.node("replica1")
    assert (node.weight, node.zone, node.priority) == (0.0, "z", 2)
    assert node in router.replicas
    assert "joined" not in router.stats()["events"]


def test_the_primary_stays_until_another_is_followed() -> None:
    """A primary that discovery does not name keeps the writes, and leaves after a promotion."""
    router = site()
    router.membership.members(["a", "b"])
    assert names(router) == ["primary", "replica1", "replica2"]
    answer(router, "replica1", primary=True, timeline=2)
    router.membership.members(["a", "b"])
    assert names(router) == ["replica1", "replica2"]
    assert router.primary is router.snapshot.node("replica1")


def test_a_primary_known_by_two_addresses_is_followed_by_the_discovered_one() -> None:
    """Where discovery names the primary by another address, that one takes over; pins hold."""
    router = site()
    router.membership.members([{"host": "10.0.0.1", "name": "pg1"}, "a", "b"])
    answer(router, "pg1", primary=True)
    assert router.primary == router.snapshot.node("primary")
    router.membership.members([{"host": "10.0.0.1", "name": "pg1"}, "a", "b"])
    answer(router, "pg1", primary=True)
    assert names(router) == ["replica1", "replica2", "pg1"]
    assert router.primary == router.snapshot.node("pg1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "no server was given"),
        ([{"hots": "a"}], r"discovery\[0\]: unknown key 'hots'"),
        (["a", {"host": "c", "name": "replica1"}], "two servers are called 'replica1'"),
    ],
)
def test_a_wrong_answer_changes_nothing(given: Any, says: str) -> None:
    """An empty or malformed answer is an error, and the cluster stays as it was."""
    router = site()
    before = router.view
    with pytest.raises(ConfigError, match=says):
        router.membership.members(given)
    assert router.view is before


def test_what_is_not_callable_is_refused() -> None:
    """The option takes a function, not its answer."""
    with pytest.raises(ConfigError, match=r"discovery: .* is not callable"):
        Config.build(Server("p"), discovery=["a"])
