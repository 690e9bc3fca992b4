"""A TCP proxy for tests that can refuse, cut, delay or go deaf."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from router.testing.ports import HOST, free_port

_CHUNK = 1 << 16  # bytes
_BACKLOG = 100  # clients that wait to be accepted
_QUEUED = 64  # chunks on their way to one side, before its sender has to wait
_LIMIT = 10.0  # seconds for a change of mode to take effect
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST instead of FIN

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection, with its other half once that exists."""

    client: socket.socket
    task: "asyncio.Future[None]" = field(init=False)
    ends: list[asyncio.StreamWriter] = field(default_factory=list)
    client_spoke_last: bool = False

    def reset(self) -> None:
        raws = [end.get_extra_info("socket") for end in self.ends] or [self.client]
        for raw in raws:
            if raw is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for end in self.ends:
            end.transport.abort()

    def close(self) -> None:
        for end in self.ends:
            end.close()
        if not self.ends:
            self.client.close()


class Proxy:
    """Forwards 127.0.0.1:`port` to a server until told otherwise.

    The modes refuse(), deaf(), delay() and die_after() hold until heal(); cut() happens once. Each
    has taken effect when it returns. `connections` counts clients accepted so far,
    `open_connections` those of now; `bytes_sent` goes from clients to the server,
    `bytes_received` the other way; `round_trips` counts how often a client began to speak after
    the server had.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = HOST
        self.port: int = free_port()
        self.connections: int = 0
        self.bytes_sent: int = 0
        self.bytes_received: int = 0
        self.round_trips: int = 0
        self._upstream = (host, port)
        self._left: int | None = None  # bytes, until the server falls silent for good
        self._dying: asyncio.Future[None] | None = None
        self._delay = 0.0
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._hearing: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        modes = [] if self._listener else ["refusing" if self._loop else "closed"]
        modes += ["deaf"] if self._hearing and not self._hearing.is_set() else []
        modes += [f"delay {self._delay:g} s"] if self._delay else []
        upstream = "{}:{}".format(*self._upstream)
        return f"<Proxy {self.host}:{self.port} to {upstream}, {', '.join(modes) or 'forwarding'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def open_connections(self) -> int:
        """Clients connected now."""
        return len(self._links)

    def url(self, server_url: str) -> str:
        """`server_url` with the proxy's address in place of the server's."""
        parts = urlsplit(server_url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    def start(self) -> None:
        """Listen; nothing if it does already."""
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True
        )
        self._thread.start()
        self._hearing = asyncio.Event()
        self._hearing.set()
        try:
            self._do(self._listen())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cut every connection and stop listening; may be called again."""
        if self._loop is None or self._thread is None:
            return
        self._do(self._die())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_LIMIT)
        self._loop.close()
        self._loop = self._thread = None

    def refuse(self) -> None:
        """Stop listening: new connections are refused, existing ones go on."""
        self._do(self._refuse())

    def cut(self) -> None:
        """Reset (RST) every existing connection on both sides; new ones are welcome."""
        self._do(self._cut())

    def delay(self, seconds: float) -> None:
        """Hold back everything the server says by `seconds`."""
        if seconds < 0:
            raise ValueError(f"delay={seconds:g} is negative: use 0 or more seconds")
        self._delay = seconds

    def deaf(self) -> None:
        """Keep and accept connections, forward nothing either way, not even their end."""
        self._do(self._deafen(True))

    def die_after(self, received: int) -> None:
        """Once the server has said `received` more bytes, over whatever connections: reset them
        all and refuse new ones, as when it is killed. What it says at that point is lost."""
        if received < 0:
            raise ValueError(f"received={received} is negative: use 0 or more bytes")
        self._left = received

    def lead_to(self, host: str, port: int) -> None:
        """Connect new clients to `host` and `port`, as a virtual address does after a failover;
        clients connected before stay where they are."""
        self._upstream = (host, port)

    def heal(self) -> None:
        """Listen and forward at once again; what a deaf proxy held back is delivered."""
        self._delay = 0.0
        self._left = self._dying = None
        self._do(self._deafen(False))
        self._do(self._listen())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the proxy is not running: use it in a with block")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_LIMIT)

    # Sockets are accepted by hand: what asyncio's own server accepts while it is being closed, or
    # hands to a task that is cancelled before its first step, nobody closes.

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=_BACKLOG)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def _refuse(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _die(self) -> None:
        await self._refuse()
        await self._cut()

    async def _deafen(self, deaf: bool) -> None:
        assert self._hearing is not None
        if deaf:
            self._hearing.clear()
        else:
            self._hearing.set()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.reset()
            link.task.cancel()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        await asyncio.sleep(0)  # abort() closes its socket in the loop's next round

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client has gone again
        client.setblocking(False)
        link = _Link(client)
        link.task = asyncio.ensure_future(self._forward(link))
        link.task.add_done_callback(lambda _: self._ended(link))
        self._links.add(link)
        self.connections += 1

    def _ended(self, link: _Link) -> None:
        link.close()
        self._links.discard(link)

    async def _forward(self, link: _Link) -> None:
        assert self._hearing is not None
        try:
            reader, writer = await asyncio.open_connection(sock=link.client, limit=_CHUNK)
            link.ends.append(writer)
            await self._hearing.wait()
            server_reader, server_writer = await asyncio.open_connection(
                *self._upstream, limit=_CHUNK
            )
            link.ends.append(server_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, server_writer, from_client=True))
                group.create_task(self._pump(link, server_reader, writer, from_client=False))
        except* (OSError, asyncio.CancelledError):
            link.reset()  # one side was reset: reset the other

    async def _pump(
        self,
        link: _Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        from_client: bool,
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver(queue, writer))
            data = b"start"
            while data:
                data = await reader.read(_CHUNK)
                if from_client:
                    self.bytes_sent += len(data)
                    self.round_trips += bool(data) and not link.client_spoke_last
                else:
                    self.bytes_received += len(data)
                    if self._dies_by(len(data)):
                        return
                link.client_spoke_last = from_client
                wait = 0.0 if from_client else self._delay
                await queue.put((asyncio.get_running_loop().time() + wait, data))

    def _dies_by(self, received: int) -> bool:
        """Whether `received` more bytes of the server's are more than it was to say."""
        if self._left is None:
            return False
        self._left -= received
        if self._left < 0 and self._dying is None:
            # In a task of its own: it cancels the caller's.
            self._dying = asyncio.ensure_future(self._die())
        return self._left < 0

    async def _deliver(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        # By the time each piece is due, so that a delay adds latency but takes no throughput.
        assert self._hearing is not None
        data = b"start"
        while data:
            due, data = await queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            await self._hearing.wait()
            if data:
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
