"""The demo's users: threads that read, write and look at what they have just written."""

import random
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, Session

import router
from router.errors import CommitUnknown, PrimaryUnavailable
from router.rules.context import RoutingContext

T = TypeVar("T")

Look = Callable[[], None]
"""Looks whether a user sees the own write, and notes it where not."""

PATIENCE = 10.0
"""Seconds a request waits for a new primary before it counts as failed."""

WORDS = ("replica", "primary", "lag", "pin", "commit", "vacuum", "index", "cursor", "schema")


class Base(orm.DeclarativeBase):
    """Declarative base of the demo's blog."""


class Post(Base):
    """A post. `request` is its writer's, and not unique: a write sent twice would show."""

    __tablename__ = "post"
    id: Mapped[int] = orm.mapped_column(primary_key=True)
    request: Mapped[uuid.UUID] = orm.mapped_column(index=True)
    author: Mapped[str]
    text: Mapped[str]
    at: Mapped[datetime] = orm.mapped_column(server_default=sa.func.now(), index=True)
    comments: Mapped[list["Comment"]] = orm.relationship(back_populates="post")


class Comment(Base):
    """A comment on a post."""

    __tablename__ = "comment"
    id: Mapped[int] = orm.mapped_column(primary_key=True)
    request: Mapped[uuid.UUID] = orm.mapped_column(index=True)
    post_id: Mapped[int] = orm.mapped_column(sa.ForeignKey("post.id"), index=True)
    text: Mapped[str]
    post: Mapped[Post] = orm.relationship(back_populates="comments")


@dataclass
class Ledger:
    """What the users saw. Each field is appended to or counted up by many threads."""

    requests: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    waited: int = 0
    longest_wait: float = 0.0
    acknowledged: list[tuple[str, uuid.UUID]] = field(default_factory=list)
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=20_000))
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        """Requests so far."""
        return sum(self.requests.values())

    def quantile(self, q: float) -> float:
        """Seconds the fraction `q` of the recent requests stayed below."""
        times = sorted(self.seconds.copy())
        return times[min(len(times) - 1, int(q * len(times)))] if times else 0.0

    def verdict(self, lost: int, doubled: int) -> list[str]:
        """What is wrong, one line each, with `lost` and `doubled` writes; empty if nothing is."""
        wrong = []
        if not self.total:
            wrong.append("no request was made")
        if self.failures:
            wrong.append(f"{len(self.failures)} requests failed, first: {self.failures[0]}")
        if self.stale:
            wrong.append(f"{len(self.stale)} stale own-reads, first: {self.stale[0]}")
        if lost:
            wrong.append(f"{lost} acknowledged writes are missing")
        if doubled:
            wrong.append(f"{doubled} writes are there twice")
        return wrong


class Users:
    """Threads that use the blog until `stop` is called."""

    def __init__(self, engine: sa.Engine, threads: int, seed: int = 1) -> None:
        self.engine = engine
        self.ledger: Ledger = Ledger()
        self._stop = threading.Event()
        self._at_once = threading.Event()
        self._contexts: dict[random.Random, RoutingContext] = {}
        self._threads = [
            threading.Thread(target=self._use, args=(random.Random(seed + i),), daemon=True)
            for i in range(threads)
        ]

    def start(self) -> None:
        """Let them begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, at_once: bool = False) -> None:
        """Let each finish its request; with `at_once`, even one that waits for a primary.

        A request that does not end is a failed one.
        """
        self._stop.set()
        if at_once:
            self._at_once.set()
        deadline = time.monotonic() + (2 if at_once else 2 * PATIENCE)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in self._threads)
        self.ledger.failures.extend(["a request did not end"] * hanging)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._threads)

    @property
    def pinned(self) -> int:
        """Requests under way that have written and may not read just anywhere."""
        return sum(bool(c.pins.by_cluster) for c in list(self._contexts.values()))

    def _use(self, rng: random.Random) -> None:
        kinds: tuple[Callable[[random.Random], Look | None], ...]
        kinds = (self.timeline, self.search, self.write_post, self.write_comment)
        while not self._stop.wait(rng.expovariate(1 / 0.012)):
            kind = rng.choices(kinds, weights=(50, 30, 12, 8))[0]
            # One context for both: the second look is the same person's, a moment later.
            with router.request_context() as context:
                self._contexts[rng] = context
                look = self._request(kind.__name__, partial(kind, rng))
                if look is not None:
                    self._stop.wait(rng.uniform(0.02, 0.2))
                    self._request("look_again", look)

    def _request(self, name: str, action: Callable[[], T]) -> T | None:
        started = time.perf_counter()
        try:
            return action()
        except Exception as error:  # noqa: BLE001 - a failed request is what is looked for
            self.ledger.failures.append(f"{name}: {' '.join(str(error).split())}")
            return None
        finally:
            with self.ledger.lock:
                self.ledger.requests[name] += 1
                self.ledger.seconds.append(time.perf_counter() - started)

    def timeline(self, rng: random.Random) -> None:
        """The latest posts with their comments; needs no `rng`."""
        latest = sa.select(Post).options(orm.joinedload(Post.comments)).order_by(Post.at.desc())
        with Session(self.engine) as session:
            session.scalars(latest.limit(10)).unique().all()

    def search(self, rng: random.Random) -> None:
        """How many posts hold a word that `rng` draws, and some of them."""
        found = sa.select(Post).where(Post.text.contains(rng.choice(WORDS))).limit(5)
        with Session(self.engine) as session:
            session.scalars(found).all()
            session.scalar(sa.select(sa.func.count()).select_from(Post))

    def write_post(self, rng: random.Random) -> Look:
        """Publish a post of words that `rng` draws, then look at it."""
        text = " ".join(rng.choices(WORDS, k=12))
        return self._write(rng, Post, author=f"user{rng.randrange(50)}", text=text)

    def write_comment(self, rng: random.Random) -> Look | None:
        """Comment on a recent post that `rng` draws, then look at the comment."""
        with Session(self.engine) as session:
            recent = sa.select(Post.id).order_by(Post.at.desc()).limit(20)
            posts = session.scalars(recent).all()
        if not posts:
            return None
        return self._write(rng, Comment, post_id=rng.choice(posts), text=rng.choice(WORDS))

    def _write(self, rng: random.Random, kind: type[Post] | type[Comment], **values: Any) -> Look:
        key = uuid.UUID(int=rng.getrandbits(128))
        doubtful = False

        def is_there() -> bool:
            with Session(self.engine) as session:
                return session.scalar(sa.select(kind.id).where(kind.request == key)) is not None

        def store() -> None:
            nonlocal doubtful
            if doubtful:
                with router.using_primary():
                    if is_there():
                        return
            try:
                with Session(self.engine) as session:
                    session.add(kind(request=key, **values))
                    session.commit()
            except PrimaryUnavailable:
                raise  # nothing was sent
            except DBAPIError:
                doubtful = True  # the connection broke: only looking tells
                raise

        self._patiently(store)
        self.ledger.acknowledged.append((kind.__tablename__, key))

        def look() -> None:
            if not self._patiently(is_there):
                self.ledger.stale.append(f"{kind.__tablename__} {key}")

        look()
        return look

    def _patiently(self, action: Callable[[], T]) -> T:
        """`action()`, again while there is no primary, as a careful client would."""
        started = time.monotonic()
        waited = False
        while True:
            try:
                result = action()
            except DBAPIError as error:
                lost = isinstance(error, PrimaryUnavailable | CommitUnknown)
                if not lost and not error.connection_invalidated:
                    raise
                waited = True
                if time.monotonic() - started > PATIENCE or self._at_once.wait(0.02):
                    raise
            else:
                if waited:
                    with self.ledger.lock:
                        self.ledger.waited += 1
                        wait = time.monotonic() - started
                        self.ledger.longest_wait = max(self.ledger.longest_wait, wait)
                return result


def audit(users: Users, execute: Callable[[str], list[tuple[Any, ...]]]) -> tuple[int, int]:
    """Acknowledged writes of `users` that are missing, and writes that are there twice; `execute`
    runs SQL on the primary, past the router."""
    lost = doubled = 0
    for table in (Post.__tablename__, Comment.__tablename__):
        stored = dict(execute(f"SELECT request, count(*) FROM {table} GROUP BY request"))
        doubled += sum(n > 1 for n in stored.values())
        lost += sum(t == table and key not in stored for t, key in users.ledger.acknowledged)
    return lost, doubled
