"""Users of the blog in examples/flask, on gunicorn with four workers over lagging replicas, one of
which is killed; then what they saw is judged.

    python -m tests.flask.drive --requests 10000 --seed 1

Exits with 1 if there was an error page, a stale own-read, or too few reads on replicas.
`nox -s flask` runs it.
"""

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from examples.flask.blog import create_app
from examples.flask.blog.models import db
from router.rules import context
from router.testing import Cluster
from router.testing.ports import free_port
from tests.consistency.history import Kind, Operation, violations

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
START = 120.0  # on a loaded machine four workers take their time
WORDS = [
    "replica",
    "primary",
    "lag",
    "pin",
    "commit",
    "vacuum",
    "index",
    "cursor",
    "schema",
    "tuple",
    "page",
    "lock",
]
VERSION = re.compile(r'data-post="(\d+)" data-version="(\d+)"')
LINK = re.compile(r"/posts/(\d+)")


class Answer:
    """A response: its status, where it leads, its text, and the ports its reads came from."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.leads = response.getheader("Location", "")
        self.text = response.read().decode()
        self.ports = [int(port) for port in response.getheader("X-Served-By", "").split()]
        self.cookies = response.headers.get_all("Set-Cookie", [])


class User:
    """A browser and who sits before it: one account, one cookie jar."""

    def __init__(self, drive: "Drive", number: int) -> None:
        self.drive, self.number = drive, number
        self.name = f"user{number}"
        self.rng = random.Random(f"{drive.seed} {number}")
        self.jar: dict[str, str] = {}
        self.posts: list[int] = []
        self.comments: list[tuple[int, int]] = []  # number of the post, number of the comment

    def request(self, path: str, form: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own, so that any worker may get it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.drive.port, timeout=PATIENCE)
        headers = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.jar.items())}
        try:
            if form is None:
                connection.request("GET", path, headers=headers)
            else:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                connection.request("POST", path, urlencode(form), headers)
            answer = Answer(connection.getresponse())
        finally:
            connection.close()
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.jar[name] = value
        return answer

    # -- what users do ---------------------------------------------------------------------

    def arrive(self) -> None:
        """Make an account, and publish a first post."""
        self.drive.ask(self, "/register", {"name": self.name, "password": "x"})
        for _ in range(100):
            self.publish()
            if self.posts:
                return
            # Sent to the log-in: nobody knew the account.
            self.drive.strangers += 1

    def act(self) -> None:
        """One thing out of many, with what a browser asks for next."""
        acts: dict[Callable[[], None], int] = {
            self.latest: 33,
            self.read: 28,
            self.search: 14,
            self.author: 10,
            self.look: 8,
            self.publish: 3,
            self.change: 2,
            self.comment: 2,
        }
        self.rng.choices(list(acts), list(acts.values()))[0]()

    def latest(self) -> None:
        self.drive.ask(self, "/")

    def search(self) -> None:
        self.drive.ask(self, f"/search?q={self.rng.choice(WORDS)}")

    def author(self) -> None:
        self.drive.ask(self, f"/users/user{self.rng.randrange(self.drive.users)}")

    def read(self) -> None:
        self.drive.ask(self, f"/posts/{self.rng.choice(self.drive.first_posts)}")

    def publish(self) -> None:
        began = time.monotonic()
        answer = self.drive.ask(self, "/posts/new", self.text())
        if answer is not None and (found := LINK.search(answer.leads)):
            post = int(found[1])
            self.drive.note(self, "write", post, 1, began)
            self.posts.append(post)
            self.look(post)

    def change(self) -> None:
        if not self.posts:
            return
        post = self.rng.choice(self.posts)
        version = self.drive.versions[post] + 1
        began = time.monotonic()
        if self.drive.ask(self, f"/posts/{post}/edit", self.text()) is not None:
            self.drive.note(self, "write", post, version, began)
            self.look(post)

    def comment(self) -> None:
        post = self.rng.choice(self.drive.first_posts)
        number = self.drive.numbers()
        began = time.monotonic()
        form = {"body": f"comment number {number}."}
        if self.drive.ask(self, f"/posts/{post}/comments", form) is not None:
            self.drive.note(self, "write", -number, 1, began)
            self.comments.append((post, number))
            self.look_at_comment()

    def look(self, post: int = 0) -> None:
        """Look at something of one's own."""
        if not post and self.comments and self.rng.random() < 0.5:
            self.look_at_comment()
            return
        if not self.posts:
            self.latest()
            return
        post = post or self.rng.choice(self.posts[-3:])
        began = time.monotonic()
        # A page that is not there yet is a stale read, not an error page.
        answer = self.drive.ask(self, f"/posts/{post}", missing=True)
        if answer is not None:
            found = VERSION.search(answer.text)
            self.drive.note(self, "read", post, int(found[2]) if found else 0, began)

    def look_at_comment(self) -> None:
        post, number = self.comments[-1]
        began = time.monotonic()
        answer = self.drive.ask(self, f"/posts/{post}")
        if answer is not None:
            there = f"comment number {number}." in answer.text
            self.drive.note(self, "read", -number, int(there), began)

    def text(self) -> dict[str, str]:
        words = self.rng.choices(WORDS, k=60)
        return {"title": " ".join(words[:4]), "body": " ".join(words)}


class Drive:
    """A run: so many requests by so many users at the site on `port`."""

    def __init__(self, port: int, *, requests: int, users: int, threads: int, seed: int) -> None:
        self.port, self.requests, self.users, self.seed = port, requests, users, seed
        self._threads = threads
        self._lock = threading.Lock()
        self._number = 0
        self.done = 0
        self.over = threading.Event()
        self.seconds: list[float] = []
        self.ports: Counter[int] = Counter()
        self.errors: list[str] = []
        self.writes = 0
        self.history: list[Operation] = []
        self.versions: Counter[int] = Counter()
        self.first_posts: list[int] = []
        self.strangers = 0

    def numbers(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def ask(
        self, user: User, path: str, form: dict[str, str] | None = None, *, missing: bool = False
    ) -> Answer | None:
        """A request, counted; None for an error page."""
        began = time.monotonic()
        problem, answer = "", None
        try:
            answer = user.request(path, form)
        except (OSError, http.client.HTTPException) as error:
            problem = f"{type(error).__name__}: {error}"
        else:
            good = (302,) if form is not None else (200, 404) if missing else (200,)
            if answer.status not in good:
                problem = f"{answer.status} {answer.text[:300]}"
        with self._lock:
            self.done += 1
            self.writes += form is not None
            self.seconds.append(time.monotonic() - began)
            if answer is not None:
                self.ports.update(answer.ports)
            if problem:
                self.errors.append(f"{'GET' if form is None else 'POST'} {path}: {problem}")
        return None if problem else answer

    def note(self, user: User, kind: Kind, key: int, version: int, began: float) -> None:
        if kind == "write":
            self.versions[key] = version
        self.history.append(
            Operation(user.number + 1, kind, key, version, began, time.monotonic())
        )

    def play(self, arrived: Callable[[], None]) -> None:
        """Let all users arrive and, once every replica has their first posts, act.

        Args:
            arrived: called when everybody has an account and a post; lets the replicas see them.
        """
        people = [User(self, number) for number in range(self.users)]
        shares = [people[n :: self._threads] for n in range(self._threads)]
        try:
            self._each(shares, self._arrive)
            assert all(user.posts for user in people), self.errors
            arrived()
            self.first_posts += [user.posts[0] for user in people]
            self._each(shares, self._act)
        finally:
            self.over.set()

    def _each(self, shares: list[list[User]], what: Callable[[list[User]], object]) -> None:
        threads = [threading.Thread(target=what, args=(share,)) for share in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _arrive(self, people: list[User]) -> None:
        for user in people:
            user.arrive()

    def _act(self, people: list[User]) -> None:
        rng = random.Random(f"{self.seed} {people[0].number}")
        while self.done < self.requests:
            rng.choice(people).act()

    def wait(self, share: float) -> bool:
        """Wait until so much of it was done; False when it is over."""
        while self.done < share * self.requests:
            if self.over.wait(0.01):
                return False
        return True

    def quantile(self, q: float) -> float:
        times = sorted(self.seconds)
        return times[int(q * (len(times) - 1))]


def harm(drive: Drive, cluster: Cluster) -> None:
    """Replay stands still on one replica for a while, the other one is killed and comes back."""
    one, other = cluster.replicas
    for begin, end, act, undo in (
        (0.2, 0.3, one.pause_replay, one.resume_replay),
        (0.45, 0.7, other.kill, other.start),
        (0.8, 0.85, one.pause_replay, one.resume_replay),
    ):
        if not drive.wait(begin):
            return
        act()
        drive.wait(end)
        undo()


@contextmanager
def site(cluster: Cluster, place: Path, consistency: str) -> Iterator[int]:
    """The blog on gunicorn, over replicas that replay 0.1 s late; its port."""
    cluster.primary.execute("CREATE DATABASE blog")
    cluster.wait_caught_up()
    port = free_port()
    options = {
        "plugins": ["router"],
        "replicas": [replica.url("blog") for replica in cluster.replicas],
        "name": "blog",
        "pin_lsn": "commit",
        "consistency": consistency,
    }
    environment = os.environ | {
        "BLOG_SQLALCHEMY_DATABASE_URI": cluster.primary.url("blog", "psycopg"),
        "BLOG_SQLALCHEMY_ENGINE_OPTIONS": json.dumps(options),
        "BLOG_SECRET_KEY": "of a test",
    }
    app = create_app({"SQLALCHEMY_DATABASE_URI": cluster.primary.url("blog", "psycopg")})
    with app.app_context():
        db.create_all()
        db.engine.dispose()
    context.ROOT.pins.clear()
    cluster.wait_caught_up()
    for replica in cluster.replicas:
        replica.set_lag(0.1)
    command = ["-m", "gunicorn", "tests.flask.served:application", "--workers", "4"]
    # Loaded once and forked, as one does in production where memory counts.
    command += ["--threads", "2", "--preload", "--bind", f"127.0.0.1:{port}"]
    with (place / "log").open("a+b") as log:  # appending: reading moves no writer's place
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        try:
            deadline = time.monotonic() + START
            while not _answers(port):
                log.seek(0)
                assert process.poll() is None, log.read().decode()
                assert time.monotonic() < deadline, log.read().decode()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)
            cluster.heal()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


class Verdict:
    """What a run came to."""

    def __init__(self, drive: Drive, cluster: Cluster) -> None:
        self.errors = drive.errors
        self.stale = list(violations(drive.history))
        self.stale += ["an account was not there"] * drive.strangers
        replicas = {replica.port for replica in cluster.replicas}
        self.by_server = {
            cluster.server_at(port).name: n for port, n in sorted(drive.ports.items())
        }
        on_replicas = sum(n for port, n in drive.ports.items() if port in replicas)
        self.share = on_replicas / max(1, drive.ports.total())
        self.own_reads = sum(o.kind == "read" for o in drive.history)

    def wrong(self, share: float = 0.85) -> list[str]:
        """What is wrong, one line each; `share` of the reads must be on replicas."""
        found = [f"error page: {line}" for line in self.errors]
        found += [f"stale: {line}" for line in self.stale]
        if self.share <= share:
            found.append(f"only {self.share:.1%} of the reads on replicas")
        return found


def drive(
    cluster: Cluster, place: Path, *, consistency: str = "lsn", **options: Any
) -> tuple[Drive, Verdict]:
    """A whole run; `consistency` is the engine's option. Harm is done where it promises anything;
    with "off" the replicas are a second late instead."""

    def arrived() -> None:
        cluster.wait_caught_up()
        if consistency == "off":
            for replica in cluster.replicas:
                replica.set_lag(1.0)
        else:
            harmer.start()

    with site(cluster, place, consistency) as port:
        run = Drive(port, **options)
        harmer = threading.Thread(target=harm, args=(run, cluster))
        run.play(arrived)
        if harmer.ident is not None:
            harmer.join()
    return run, Verdict(run, cluster)


def main(arguments: list[str] | None = None) -> int:
    """The long run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10_000)
    parser.add_argument("--consistency", default="lsn", help="off shows what pins are for")
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    with Cluster(2) as cluster, tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        run, verdict = drive(cluster, Path(place), **vars(options))
        log = (Path(place) / "log").read_text()
    print(
        f"{run.done:,} requests in {time.monotonic() - began:.0f} s, {run.writes:,} of them "
        f"writes; p50 {run.quantile(0.5) * 1000:.0f} ms, p99 {run.quantile(0.99) * 1000:.0f} ms, "
        f"slowest {run.quantile(1) * 1000:.0f} ms"
    )
    print(f"{len(verdict.errors)} error pages")
    print(f"{verdict.own_reads:,} looks at own writes, {len(verdict.stale)} stale")
    print(f"{verdict.share:.1%} of {run.ports.total():,} reads on replicas: {verdict.by_server}")
    for line in verdict.wrong()[:10]:
        print("WRONG", line)
    if verdict.wrong():
        print(log[-4000:])
    return 1 if verdict.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
