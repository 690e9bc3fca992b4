"""Pins as text: the signed token of a cookie or header, and the fields of a store.

A token holds positions, never data. It is built from fixed-width fields, so nothing in it has to
be parsed before its signature is known to be good, and nothing longer than `MAX_TOKEN` is even
looked at.
"""

import enum
import hashlib
import hmac
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from router.errors import ConfigError
from router.model import Lsn

MAX_TOKEN = 1024
"""Characters of the longest token that is looked at."""

MAX_ENTRIES = 8
"""Clusters a token may name; the newest writes win."""

MIN_SECRET = 16
"""Characters of the shortest secret that is taken."""

REMEMBERED = 1000
"""Tokens whose signature is not verified again: a browser sends the same one for a minute."""

_VERSION = "1"
_KNOWN = re.compile(r"([0-9a-f]{8})([0-9a-f]{16})([0-9a-f]{12})")
_UNKNOWN = re.compile(r"([0-9a-f]{12})([0-9a-f]{12})")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One cluster's pin, as other processes may know it.

    Attributes:
        id: stands for the cluster; see `Tokens.ids`.
        written: when the write was (seconds since 1970, in whole milliseconds).
        lsn: position that covers the write, None when none was known yet.
        timeline: the timeline `lsn` belongs to.
        mark: without a position, what tells this entry from every other: 12 hexadecimal digits.
    """

    id: str
    written: float
    lsn: Lsn | None = None
    timeline: int = 0
    mark: str = ""

    @property
    def field(self) -> str:
        """Its name in a store, where a cluster may have an entry with an LSN and one without."""
        return self.id if self.lsn is not None else f"{self.id}?"

    @property
    def value(self) -> str:
        """Its text without the id. Of two known positions the greater text is later."""
        written = f"{int(self.written * 1000 + 0.5):012x}"
        if self.lsn is None:
            return written + self.mark
        return f"{self.timeline:08x}{self.lsn:016x}{written}"

    @classmethod
    def parse(cls, name: str, value: str) -> "Entry | None":
        """The entry of cluster id `name` with the text `value`, None where that is no entry."""
        if not _ID.fullmatch(name):
            return None
        if known := _KNOWN.fullmatch(value):
            timeline, lsn, written = (int(part, 16) for part in known.groups())
            return cls(name, written / 1000, Lsn(lsn), timeline)
        if unknown := _UNKNOWN.fullmatch(value):
            return cls(name, int(unknown[1], 16) / 1000, mark=unknown[2])
        return None


def merged(
    before: Mapping[str, str], saved: Mapping[str, str], ttl: float = math.inf
) -> dict[str, str]:
    """What a store holds after `saved` was saved over `before`: the rule every store follows.

    A known position replaces a smaller one. So that a store does not go deaf when a cluster moves
    to smaller positions, it replaces a greater one as well, if that was written more than `ttl`
    seconds before it, or before it on a higher timeline. An unknown one always replaces what was
    there: it stands for "as of now", and the later it is saved, the more it covers.
    """
    kept = {
        name: value
        for name, value in saved.items()
        if name.endswith("?") or _replaces(value, before.get(name, ""), ttl)
    }
    return {**before, **kept}


def _replaces(value: str, before: str, ttl: float) -> bool:
    if before < value:
        return True
    new, old = _KNOWN.fullmatch(value), _KNOWN.fullmatch(before)
    if new is None or old is None:
        return False
    later = int(new[3], 16) - int(old[3], 16)
    return later > ttl * 1000 or (later > 0 and new[1] < old[1])


class Fault(enum.Enum):
    """Why a token was ignored."""

    TOO_LONG = "too long"
    TAMPERED = "not signed with any of our secrets"
    MALFORMED = "signed, but not a token this version reads"
    EXPIRED = "expired"
    FOREIGN = "of a cluster this process does not know"

    def __str__(self) -> str:
        return self.value


class Tokens:
    """Signs and reads tokens."""

    def __init__(self, secret: str | Sequence[str], max_age: float) -> None:
        """Prepare to sign with the first `secret` of one or several, and to verify with all. A pin
        is worth carrying for `max_age` seconds after its write.

        Raises:
            ConfigError: a secret is missing or short, or itsdangerous is not installed.
        """
        given: object = secret
        secrets: tuple[object, ...] = ()
        if isinstance(given, str):
            secrets = (given,)
        elif isinstance(given, Iterable) and not isinstance(given, bytes):
            secrets = tuple(given)
        texts = [each for each in secrets if isinstance(each, str)]
        if not texts or len(texts) < len(secrets) or min(map(len, texts)) < MIN_SECRET:
            raise ConfigError(
                f"secret: expected one string or a list of them, newest first, each of at least "
                f"{MIN_SECRET} characters: make one with secrets.token_urlsafe(32)"
            )
        if not isinstance(max_age, int | float):
            raise ConfigError(f"max_age: {max_age!r} is no number: give seconds above 0")
        if not max_age > 0:
            raise ConfigError(f"max_age: {max_age!r} is not positive: give seconds above 0")
        try:
            from itsdangerous import BadSignature, Signer
        except ImportError:
            raise ConfigError(
                "secret: signing tokens needs itsdangerous: pip install 'pg-router[web]'"
            ) from None
        self.max_age: float = max_age
        self._bad = BadSignature
        # itsdangerous wants the newest last, and would derive a key each time it uses it.
        self._signer = Signer(
            [hmac.digest(s.encode(), b"pg-router.pin", "sha256") for s in texts[::-1]],
            key_derivation="none",
            digest_method=hashlib.sha256,
        )
        self._keys = tuple(hmac.digest(s.encode(), b"pg-router.cluster", "sha256") for s in texts)
        self._ids: dict[str, tuple[str, ...]] = {}
        self._verified: Callable[[str], tuple[Entry, ...] | Fault]
        self._verified = lru_cache(REMEMBERED)(self._verify)

    def ids(self, cluster: str) -> tuple[str, ...]:
        """The names of `cluster` in tokens, by each secret, newest first. They are keyed hashes: a
        cluster id may hold host names, which are nobody's business outside."""
        ids = self._ids.get(cluster)
        if ids is None:
            name = cluster.encode("utf-8", "surrogatepass")
            ids = tuple(hmac.digest(key, name, "sha256")[:8].hex() for key in self._keys)
            self._ids[cluster] = ids
        return ids

    def sign(self, entries: Iterable[Entry]) -> str:
        """The token for `entries`: letters, digits, ``-``, ``_``, ``.`` and ``~`` only."""
        newest = sorted(entries, key=lambda e: e.written, reverse=True)[:MAX_ENTRIES]
        text = "~".join([_VERSION, *(e.id + e.value for e in newest)])
        return self._signer.sign(text).decode("ascii")

    def read(self, token: str, wall: float) -> tuple[Entry, ...] | Fault:
        """The entries of `token`, which anybody may have sent, that have not expired at `wall`
        (seconds since 1970), or why there are none. Never raises."""
        if len(token) > MAX_TOKEN:
            return Fault.TOO_LONG
        entries = self._verified(token)
        if isinstance(entries, Fault):
            return entries
        return tuple(e for e in entries if self.alive(e, wall)) or Fault.EXPIRED

    def _verify(self, token: str) -> tuple[Entry, ...] | Fault:
        if not token.isascii():
            return Fault.TAMPERED
        try:
            text = self._signer.unsign(token).decode("ascii")
        except self._bad:
            return Fault.TAMPERED
        return _entries(text)

    def alive(self, entry: Entry, wall: float) -> bool:
        """Whether `entry` is still worth carrying at `wall` (seconds since 1970)."""
        return wall - entry.written <= self.max_age


def unverified(token: str) -> tuple[Entry, ...] | Fault:
    """What `token` says, for people to look at; anybody could have written it. Never raises."""
    if len(token) > MAX_TOKEN:
        return Fault.TOO_LONG
    return _entries(token.rpartition(".")[0])


def _entries(text: str) -> tuple[Entry, ...] | Fault:
    version, *parts = text.split("~")
    if version != _VERSION or not 0 < len(parts) <= MAX_ENTRIES:
        return Fault.MALFORMED
    read = [Entry.parse(part[:16], part[16:]) for part in parts]
    entries = tuple(entry for entry in read if entry is not None)
    return entries if len(entries) == len(read) else Fault.MALFORMED
