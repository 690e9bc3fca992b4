"""Pin stores in Redis, for callers that several processes or machines serve."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from router.config.sources import mediafusion
from router.errors import ConfigError, RouterError
from router.pins.store import DOUBT, Breaker
from router.runtime import SYSTEM

try:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import ConstantBackoff
    from redis.retry import Retry
except ImportError:
    raise ConfigError("router.redis needs redis-py: pip install 'pg-router[redis,web]'") from None

# `router.pins.token.merged` as one step on the server: two requests of a caller may save at once.
_SAVE = """
local function written(value)
  return #value == 36 and string.match(value, '^[0-9a-f]+$')
    and tonumber(string.sub(value, 25), 16)
end
local function replaces(value, before)
  if before < value then return true end
  local new, old = written(value), written(before)
  if not new or not old then return false end
  local later = new - old
  return later > tonumber(ARGV[1])
    or (later > 0 and string.sub(value, 1, 8) < string.sub(before, 1, 8))
end
for i = 2, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', KEYS[1], name)
  if not before or string.sub(name, -1) == '?' or replaces(value, before) then
    redis.call('HSET', KEYS[1], name, value)
  end
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


class StoreUnavailable(RouterError):
    """Redis failed lately and is not asked for now."""


class _Store:
    """What the two stores share."""

    _redis: ClassVar[Any]
    _retry: ClassVar[Any]

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "pg_router:pin:",
        failures: int = 3,
        cooldown: float = 5.0,
    ) -> None:
        if not 0 <= cooldown < DOUBT:
            raise ConfigError(
                f"cooldown: {cooldown!r} is no cooldown: give 0 to less than {DOUBT:g} seconds"
            )
        self._client = client
        self._prefix = prefix
        self._breaker = Breaker(failures, cooldown)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        timeout: float = 0.25,
        retries: int = 1,
        retry_delay: float = 0.05,
        max_connections: int = 100,
        **options: Any,
    ) -> Self:
        """A store with a client of its own. Nothing is connected yet.

        Args:
            url: ``redis://…``, ``rediss://…`` or ``unix://…``.
            timeout: seconds to wait for a connection, and for an answer.
            retries: how often a call is tried again.
            retry_delay: seconds before each of these.
            max_connections: size of the client's pool.
            options: ``prefix`` of the keys; ``failures`` in a row that open the circuit breaker
                (3; 0 for none) and its ``cooldown`` in seconds (5).
        """
        client = cls._redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            max_connections=max_connections,
            retry=cls._retry(ConstantBackoff(retry_delay), retries),
        )
        return cls(client, **options)

    @classmethod
    def from_mediafusion(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """A store in the Redis that MediaFusion's variables name, ``REDIS_URL`` and so on, in
        `environ`, by default the process's. `options`, as `from_url` takes them, win over them.

        Raises:
            ConfigError: ``REDIS_URL`` is not set, or another is no number.
        """
        url, found = mediafusion.read_redis(os.environ if environ is None else environ)
        return cls.from_url(url, **{**found, **options})

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Around one call: the circuit breaker may refuse it, and learns how it ended."""
        if not self._breaker.allows(SYSTEM.clock()):
            raise StoreUnavailable("Redis failed lately: it is asked again after the cooldown")
        try:
            yield
        except Exception:
            self._breaker.failed(SYSTEM.clock())
            raise
        self._breaker.succeeded()

    def _arguments(self, who: str, fields: Mapping[str, str], ttl: float) -> list[Any]:
        flat = [part for item in fields.items() for part in item]
        return [_SAVE, 1, self._prefix + who, max(1, round(ttl * 1000)), *flat]


def _texts(found: Mapping[Any, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: Any) -> str:
    # A client of the user's own may or may not decode.
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)


class RedisPinStore(_Store):
    """Pins in Redis, over a client of redis-py.

    A call takes at most about ``(retries + 1) * timeout + retries * retry_delay`` seconds.
    """

    _redis: ClassVar[Any] = Redis
    _retry: ClassVar[Any] = Retry

    def load(self, who: str) -> Mapping[str, str]:
        """The fields saved for `who`, empty when there are none."""
        with self._asking():
            found: Any = self._client.hgetall(self._prefix + who)
        return _texts(found)

    def save(self, who: str, fields: Mapping[str, str], ttl: float) -> None:
        """Merge `fields` into what is saved for `who`, to be forgotten after `ttl` seconds."""
        with self._asking():
            self._client.eval(*self._arguments(who, fields, ttl))

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()


class AsyncRedisPinStore(_Store):
    """`RedisPinStore` for asyncio, over a client of ``redis.asyncio``."""

    _redis: ClassVar[Any] = AsyncRedis
    _retry: ClassVar[Any] = AsyncRetry

    async def load(self, who: str) -> Mapping[str, str]:
        """The fields saved for `who`, empty when there are none."""
        with self._asking():
            found: Any = await self._client.hgetall(self._prefix + who)
        return _texts(found)

    async def save(self, who: str, fields: Mapping[str, str], ttl: float) -> None:
        """Merge `fields` into what is saved for `who`, to be forgotten after `ttl` seconds."""
        with self._asking():
            await self._client.eval(*self._arguments(who, fields, ttl))

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.aclose()
