"""Two worker processes of a real server, a real cluster whose replay stands still, a real Redis:
what one worker writes, the next request sees in the other."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from router.pins.options import COOKIE
from router.testing import Cluster
from router.testing.ports import free_port
from tests.pins.conftest import RedisServer

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "gunicorn": "-m gunicorn tests.pins.app:wsgi --workers 2 --bind 127.0.0.1:{port}",
    "uvicorn": "-m uvicorn tests.pins.app:asgi --workers 2 --host 127.0.0.1 --port {port} "
    "--log-level warning",
}
PATIENCE = 20.0
STARTING = 90  # seconds for a server on a machine that is busy with other tests as well


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def __getitem__(self, name: str) -> Any:
        return json.loads(self.body)[name]


class Client:
    """A browser: it keeps the cookie it was given. Every request opens a connection."""

    def __init__(self, port: int, *, header: bool = False, user: str = "") -> None:
        self.port = port
        self.header = header
        self.user = user
        self.token: str | None = None

    def __call__(self, path: str = "/", method: str = "GET") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"X-User": self.user} if self.user else {}
        if self.token is not None and not self.user:
            carried = (
                {"X-Pin": self.token} if self.header else {"Cookie": f"{COOKIE}={self.token}"}
            )
            headers |= carried
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        answer = Answer(
            response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        )
        connection.close()
        if self.header:
            self.token = answer.headers.get("x-pin", self.token)
        elif "set-cookie" in answer.headers:
            self.token = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
        return answer


class Blocked:
    """A worker that does nothing until it is released."""

    def __init__(self, mark: Path, thread: threading.Thread) -> None:
        self.pid = int(mark.suffix[1:])
        self._mark = mark
        self._thread = thread

    def release(self) -> None:
        if self._mark.exists():
            (self._mark.parent / f"release.{self.pid}").touch()
            self._thread.join()
            self._mark.unlink()


@dataclass
class Site:
    """A server with two workers before the cluster."""

    kind: str
    port: int
    place: Path
    cluster: Cluster
    redis: RedisServer

    def client(self, **options: Any) -> Client:
        return Client(self.port, **options)

    @contextmanager
    def blocked(self) -> Iterator[Blocked]:
        """One worker, whichever takes the request, does nothing else meanwhile."""
        before = set(self.place.glob("blocked.*"))
        thread = threading.Thread(target=self.client(), args=("/block",))
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not (found := set(self.place.glob("blocked.*")) - before):
            assert time.monotonic() < deadline, "no worker was blocked in time"
            time.sleep(0.002)
        (mark,) = found
        worker = Blocked(mark, thread)
        try:
            yield worker
        finally:
            worker.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Replay stands still on every replica."""
        with self.cluster.replay_paused():
            yield

    def on_each(self, act: Callable[[], Answer]) -> list[Answer]:
        """Do `act` in one worker and in the other; which comes first is anybody's guess."""
        with self.blocked() as first:
            one = act()
            with self.blocked() as second:
                first.release()
                other = act()
        assert (one["pid"], other["pid"]) == (second.pid, first.pid)
        assert first.pid != second.pid
        return [one, other]

    def until(self, act: Callable[[], Answer], good: Callable[[Answer], bool]) -> Answer:
        """Do `act` until the answer is good, for a bounded time."""
        deadline = time.monotonic() + PATIENCE
        while not good(answer := act()):
            assert time.monotonic() < deadline, answer
            time.sleep(0.01)
        return answer

    def from_primary(self, answer: Answer) -> bool:
        return bool(answer["port"] == self.cluster.primary.port)

    def rest(self) -> int:
        """Wait until a stranger reads from a replica in both workers, and everything there is;
        the number of items."""
        self.cluster.wait_caught_up()
        stranger = self.client()
        rows = self.cluster.primary.execute("SELECT count(*) FROM item", dbname=f"{self.kind}_web")
        count = int(rows[0][0])
        for answer in self.on_each(
            lambda: self.until(stranger, lambda a: not self.from_primary(a))
        ):
            assert answer["count"] == count
        return count

    def stats(self) -> dict[str, int]:
        """The counts of both workers together."""
        total: dict[str, int] = {}
        stranger = self.client()

        def ask() -> Answer:
            found = json.loads(stranger("/stats").body)
            return Answer(200, {}, json.dumps({"pid": stranger()["pid"], "of": found}).encode())

        for answer in self.on_each(ask):
            for name, n in answer["of"].items():
                total[name] = total.get(name, 0) + n
        return total


@pytest.fixture(scope="module", params=COMMANDS)
def site(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    kind = request.param
    place = tmp_path_factory.mktemp(kind)
    dbname = f"{kind}_web"
    cluster.heal()
    cluster.primary.execute(f"CREATE DATABASE {dbname}")
    cluster.primary.execute(
        "CREATE TABLE item (id serial PRIMARY KEY, name text NOT NULL)", dbname=dbname
    )
    cluster.wait_caught_up()
    redis = RedisServer(place)
    redis.start()
    port = free_port()
    environment = os.environ | {
        "APP_PLACE": str(place),
        "APP_PRIMARY": cluster.primary.url(dbname),
        "APP_REPLICAS": ",".join(replica.url(dbname) for replica in cluster.replicas),
        "APP_REDIS": redis.url,
    }
    log = (place / "log").open("w+b")
    process = subprocess.Popen(
        [sys.executable, *COMMANDS[kind].format(port=port).split()],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
    )
    site = Site(kind, port, place, cluster, redis)
    try:
        deadline = time.monotonic() + STARTING
        while True:
            try:
                site.client()()
                break
            except OSError:
                log.seek(0)
                assert process.poll() is None, log.read().decode()
                assert time.monotonic() < deadline, log.read().decode()
                time.sleep(0.02)
        yield site
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()
        redis.kill()
        cluster.heal()
        cluster.primary.execute(f"DROP DATABASE {dbname} WITH (FORCE)")


only_uvicorn = pytest.mark.parametrize("site", ["uvicorn"], indirect=True)


@pytest.mark.parametrize("header", [False, True], ids=["cookie", "header"])
def test_a_write_in_one_worker_is_seen_in_the_other(site: Site, header: bool) -> None:
    """While replay stands still, who wrote in one worker sees it in both, and a stranger sees
    the replicas' old state; once they have replayed it, so they serve it."""
    count = site.rest()
    me = site.client(header=header)
    with site.paused():
        with site.blocked() as other:
            writer = me("/write")["pid"]
            assert writer != other.pid
        for answer in site.on_each(me):
            assert site.from_primary(answer)
            assert answer["count"] == count + 1
        for answer in site.on_each(site.client()):
            assert not site.from_primary(answer)
            assert answer["count"] == count
    for answer in site.on_each(lambda: site.until(me, lambda a: not site.from_primary(a))):
        assert answer["count"] == count + 1


@only_uvicorn
def test_the_async_engine_with_positions_from_the_commit(site: Site) -> None:
    """A write of the asynchronous engine is seen in both workers; asked for at the commit, its
    position is in the token."""
    count = site.rest()
    me, stranger = site.client(), site.client()
    with site.paused():
        me("/async-write")
        assert me.token
        assert len(me.token.partition(".")[0]) == len("1~") + 16 + 36
        for answer in site.on_each(lambda: me("/async")):
            assert site.from_primary(answer)
            assert answer["count"] == count + 1
        for answer in site.on_each(lambda: stranger("/async")):
            assert not site.from_primary(answer)
            assert answer["count"] == count
    for answer in site.on_each(
        lambda: site.until(lambda: me("/async"), lambda a: not site.from_primary(a))
    ):
        assert answer["count"] == count + 1


def test_what_a_response_says(site: Site) -> None:
    """Every kind of response to a write carries the token and is kept from shared caches, an
    error page too; without a write none does."""
    site.rest()
    with site.paused():
        for path, method, status in (
            ("/write", "POST", 200),
            ("/write", "HEAD", 200),
            ("/write-not-modified", "GET", 304),
            ("/error", "POST", 500),
        ):
            me = site.client()
            answer = me(path, method)
            assert answer.status == status
            assert me.token, path
            assert "private" in answer.headers["cache-control"]
            assert "public" not in answer.headers["cache-control"]
            assert answer.headers["vary"] == "Cookie, X-Pin"
            assert site.from_primary(me())
        for path, method in (("/", "GET"), ("/", "HEAD"), ("/not-modified", "GET")):
            stranger = site.client()
            answer = stranger(path, method)
            assert stranger.token is None
            assert "vary" not in answer.headers
            assert answer.headers.get("cache-control", "public").startswith("public")


def test_a_write_while_the_response_streams(site: Site) -> None:
    """It reads its own writes while it streams. No cookie can carry them: without a store that
    is counted, with one the other worker sees them."""
    count = site.rest()
    before = site.stats().get("pin_lost", 0)
    with site.paused():
        nobody = site.client()
        answer = nobody("/stream")
        first, _, rest = answer.body.partition(b"\n")
        assert first == b"first"
        assert json.loads(rest)["count"] == count + 1
        assert nobody.token is None
        user = site.client(user=f"{site.kind} streams")
        user("/stream")
        for answer in site.on_each(user):
            assert answer["count"] == count + 2
    assert site.stats()["pin_lost"] == before + 1


def test_rubbish_is_ignored(site: Site) -> None:
    """Tokens that are not ours get the stranger's answer, and are counted."""
    site.rest()
    before = site.stats().get("token_ignored", 0)
    for token in ("", "1~", "a.b", "x" * 3000, "1~%00.\xff"):
        me = site.client()
        me.token = token
        assert me().status == 200
    assert site.stats()["token_ignored"] == before + 5


def test_redis_is_killed_in_the_middle(site: Site) -> None:
    """With the store alone a user is followed between workers; without Redis every request is
    pinned from its start and none fails; when it is back, it serves again."""
    count = site.rest()
    me, you = site.client(user="me"), site.client(user="you")
    with site.paused():
        me("/write")
        for answer in site.on_each(me):
            assert answer["count"] == count + 1
        for answer in site.on_each(you):
            assert answer["count"] == count
        site.redis.kill()
        you("/write")
        for client in (me, you):
            for answer in site.on_each(client):
                assert answer["count"] == count + 2
        site.redis.start()
        for client in (me, you):
            for answer in site.on_each(client):
                assert answer["count"] == count + 2
    deadline = time.monotonic() + PATIENCE
    while site.stats().get("store_back", 0) < 2:  # a breaker stays open for a moment
        assert time.monotonic() < deadline
        site.on_each(me)
    assert site.stats()["store_away"] == 2


@only_uvicorn
def test_a_websocket_and_requests_see_each_other(site: Site) -> None:
    """A message's write is seen by the same user's next request, and the reverse."""
    count = site.rest()
    me = site.client(user="chats")
    with (
        connect(f"ws://127.0.0.1:{site.port}/", additional_headers={"X-User": "chats"}) as socket,
        site.paused(),
    ):

        def say(text: str) -> int:
            socket.send(text)
            return int(json.loads(socket.recv(PATIENCE))["count"])

        assert say("write") == count + 1
        assert [a["count"] for a in site.on_each(me)] == [count + 1] * 2
        me("/write")
        assert say("read") == count + 2
