"""SQL text -> Intent: what a statement does, by PostgreSQL's own grammar and the server's catalog.

Only what is positively recognised as a read is called one. Whatever does not parse, is of an
unknown kind, or reaches a function, relation, type or operator not known to be harmless, is a
write: the primary runs it, which is always right.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from router import registry
from router.sql import bounds, parser, settings
from router.sql.cache import Cache, key_of
from router.sql.catalog import BUILTIN, Catalog
from router.sql.grammar import names_temp
from router.sql.hints import hinted
from router.sql.intent import Intent, Kind, OnStandby, Rule
from router.sql.judge import Judge
from router.sql.objects import Effect
from router.sql.plpgsql import scan
from router.sql.reach import Reach
from router.sql.shorten import shortened
from router.sql.statements import statement

NOT_PARSED = ("does not parse", "not parsed")
"""How the reasons of texts begin that no tree was made of."""

# Possessive: tried in other ways, what was passed over takes twice as long with each comment.
_BEGINS_LIKE_A_READ = re.compile(
    r"(?:\s++|\(|--[^\n]*+\n|/\*(?:[^*]|\*(?!/))*+\*/)*+(select|with|values|table)\b",
    re.IGNORECASE,
)
_SHOWN = 300
"""Characters of a text that are kept to be shown."""

_EMPTY = Intent(Kind.READ, "empty")
_SETS = 100
"""Different sets of parameters of one statement that are looked at."""

MAX_BYTES = 16 << 20
"""Bytes that the texts of which the intents are remembered may take."""


def classify(sql: str, catalog: Catalog = BUILTIN) -> Intent:
    """Say what `sql` does, judged by `catalog`. Never raises, whatever the text.

    Args:
        sql: one or more statements, with the placeholders of any driver.
        catalog: what is known of the server; without it only statements over PostgreSQL's own
            relations and functions can be reads.
    """
    return _hinted(sql, _classified(sql, Judge(catalog)))


def _hinted(sql: str, intent: Intent) -> Intent:
    """`intent`, with where `sql` itself says that it is to run; on a replica runs only a read."""
    hint = hinted(sql)
    if hint is None or (hint == "replica" and intent.kind is not Kind.READ):
        return intent
    return replace(intent, hint=hint)


def _classified(
    sql: str, judge: Judge, known: Mapping[settings.Key, settings.Value] | None = None
) -> Intent:
    """What `sql` does by the grammar, where this much is `known` of its parameters."""
    sql = shortened(sql)
    try:
        statements = parser.parse(sql)
        if known is not None:
            settings.fill(sql, statements, known)
        intents = [statement(node["stmt"], judge) for node in statements]
    except bounds.TooComplex as error:
        return _unparsed(sql, str(error), judge)
    except (parser.NotParsed, RecursionError, UnicodeError, ValueError, MemoryError) as error:
        if isinstance(error, parser.NotParsed):
            return _by_words(sql, f"does not parse: {parser.message(error)}", judge)
        # Nobody knows what the text holds.
        reason = f"does not parse: {type(error).__name__}"
        return Intent(Kind.WRITE, reason, binds=True, ddl=True, on_standby=OnStandby.UNSEEN)
    intent = _strongest(intents)
    if (
        intent.kind is Kind.READ
        and "%%" in sql
        and any("%%" in o for o in judge.catalog.operators)
    ):
        intent = _as_it_is(sql, intent, judge)
    if _may_name_temp(sql.lower(), intent.kind) and any(
        names_temp(node, intent.kind) for node in statements
    ):
        reason = intent.reason if intent.kind is Kind.WRITE else "names pg_temp"
        intent = replace(intent, kind=Kind.WRITE, reason=reason, binds=True, holds=True)
    if known is None and (keys := settings.parameters(sql, statements)):
        intent = replace(intent, parameters=keys)
    return intent


def _as_it_is(sql: str, intent: Intent, judge: Judge) -> Intent:
    """The intent of a read that has "%%" in it: `intent` where the driver makes one sign of it,
    but a driver that is given no parameters sends it as it is."""
    try:
        intents = [statement(node["stmt"], judge) for node in parser.tree(sql)]
    except parser.NotParsed:
        return intent
    return _strongest([intent, *intents])


def _may_name_temp(sql: str, kind: Kind) -> bool:
    """Whether `sql`, in lower case, may name pg_temp, as it is or with escapes; in a literal only
    where it is of the `kind` SESSION."""
    return "pg_temp" in sql or "u&" in sql or (kind is Kind.SESSION and "e'" in sql)


def _by_words(sql: str, reason: str, judge: Judge) -> Intent:
    """The intent of a text without a tree: a write, and the rest by its words."""
    names = scan(sql)
    walk = Reach(names, judge)
    return Intent(
        Kind.WRITE,
        reason,
        binds=walk.binds or names.sets,
        ddl=walk.ddl,
        on_standby=OnStandby.ACTS if walk.effect is Effect.ACTS else OnStandby.UNSEEN,
    )


def _unparsed(sql: str, why: str, judge: Judge) -> Intent:
    """The intent of a text that is kept from the parser."""
    intent = _by_words(sql, f"not parsed: {why}", judge)
    # Several statements may set anything, or leave a transaction open.
    several = ";" in sql.rstrip("; \t\r\n")
    return replace(intent, binds=intent.binds or not judge.catalog.loaded or several)


def _strongest(intents: list[Intent]) -> Intent:
    if len(intents) == 1:
        return intents[0]
    if not intents:
        return _EMPTY
    kinds = {i.kind for i in intents}
    needs = any(i.needs_transaction for i in intents)
    if kinds == {Kind.READ}:
        own = next((i for i in intents if i.server_local), None)
        return Intent(
            Kind.READ,
            (own or intents[0]).reason,
            needs_transaction=needs,
            server_local=own is not None,
        )
    if kinds == {Kind.SESSION} and len({(i.local, i.no_transaction) for i in intents}) == 1:
        return _settings(intents)
    return _several(intents)


def _several(intents: list[Intent]) -> Intent:
    """Statements of several kinds as one: a write."""
    order = (Kind.WRITE, Kind.TRANSACTION, Kind.SESSION)
    strongest = min((i for i in intents if i.kind in order), key=lambda i: order.index(i.kind))
    return Intent(
        Kind.WRITE,
        f"several statements, one of them {strongest.reason}",
        # What they set, or a transaction they leave open, nobody follows: stay with that session.
        binds=any(
            i.binds or i.kind is Kind.TRANSACTION or (i.kind is Kind.SESSION and not i.local)
            for i in intents
        ),
        holds=any(i.holds or (i.kind is Kind.SESSION and not i.local) for i in intents),
        ddl=any(i.ddl for i in intents),
        no_transaction=any(i.no_transaction for i in intents),
        on_standby=_together(intents),
        signals=any(i.signals for i in intents),
    )


def _settings(intents: list[Intent]) -> Intent:
    """Several SETs of one kind as one that sets it all."""
    names: list[str] = []
    computed = any(i.computed for i in intents)
    for i in intents:
        if i.settings is None:
            # What was computed cannot be asked for without its name.
            return _several(intents) if computed else replace(intents[0], settings=None)
        names.extend(n for n in i.settings if n not in names)
    return replace(
        intents[0], settings=tuple(names), read_only=None, isolation=None, computed=computed
    )


def _together(intents: list[Intent]) -> OnStandby:
    """What a standby makes of several statements: those before the refused one have acted."""
    if any(i.kind is Kind.TRANSACTION or i.kind is Kind.SESSION for i in intents):
        return OnStandby.ACTS
    found = {i.on_standby for i in intents if i.kind is Kind.WRITE}
    return max(found, key=list(OnStandby).index)


def refused(intent: Intent, reason: str) -> Intent:
    """`intent` as that of a write, for `reason`: a standby has refused it."""
    sets = intent.binds or (intent.kind is Kind.SESSION and not intent.local)
    return Intent(Kind.WRITE, reason, binds=sets, holds=sets, on_standby=OnStandby.REFUSED)


class Classifier:
    """Intents by text: bounded, safe under threads, bound to a catalog and to users' rules.

    A text seen before costs one dict look-up and takes no lock.

    Args:
        catalog: what is known of the server.
        read_functions: functions to be taken as harmless, by name or schema.name.
        write_functions: functions to be taken as writes, by name or schema.name.
        read_patterns: regular expressions; a text in which one is found is a read.
        write_patterns: regular expressions; a text in which one is found is a write, before all.
        rule: asked after the patterns; None leaves the answer to the grammar.
        hints: a comment such as ``/* router: primary */`` says where a statement runs.
        max_entries: how many texts are remembered.
        max_bytes: what they may take together; a text over 4,096 characters is not kept, but
            known by a digest of it.

    Attributes:
        known: intents found already, by text; for reading.
        unparsed: how many texts begin like a read and do not parse, which runs them on the
            primary, and how the first one begins after its comments; of all catalogs together.
    """

    def __init__(
        self,
        catalog: Catalog = BUILTIN,
        *,
        read_functions: Iterable[str] = (),
        write_functions: Iterable[str] = (),
        read_patterns: Iterable[str | re.Pattern[str]] = (),
        write_patterns: Iterable[str | re.Pattern[str]] = (),
        rule: Rule | None = None,
        hints: bool = True,
        max_entries: int = 10_000,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._functions = (
            frozenset(f.lower() for f in read_functions),
            frozenset(f.lower() for f in write_functions),
        )
        self._judge = Judge(catalog, *self._functions)
        self._read = tuple(re.compile(p) for p in read_patterns)
        self._write = tuple(re.compile(p) for p in write_patterns)
        self._rule = rule
        self._hints = hints
        self._bounds = max_entries, max_bytes
        self._lock = registry.lock()
        self._misses = 0
        self.unparsed: tuple[int, str] = (0, "")
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing; what is found by a miss under way goes into what it began with."""
        self._known: Cache[str | bytes, Intent] = Cache(*self._bounds)
        self._given: Cache[_Given, Intent] = Cache(*self._bounds)
        self._learnt: Cache[str | bytes, str] = Cache(*self._bounds)
        self.known: Mapping[str | bytes, Intent] = self._known.entries

    def __call__(self, sql: str) -> Intent:
        """What `sql` does."""
        intent = self.known.get(sql)
        return intent if intent is not None else self._miss(sql)

    def __len__(self) -> int:
        return len(self.known)

    def stats(self) -> dict[str, int]:
        """Texts remembered, the bytes they take, texts learnt as writes by healing, parses so far,
        and texts that begin like a read and do not parse."""
        return {
            "entries": len(self.known),
            "bytes": self._known.bytes + self._given.bytes + self._learnt.bytes,
            "learnt": len(self._learnt.entries),
            "misses": self._misses,
            "unparsed": self.unparsed[0],
        }

    def learn_write(self, sql: str, reason: str) -> None:
        """Take `sql`, and whatever differs from it in comments and constants only, for a write
        while this catalog is in force, for `reason`: a replica refused it, and the primary did
        not. The journal does not see then what it sets."""
        intent, alike = refused(self(sql), reason), _alike(sql)
        with self._lock:
            self._learnt.put(alike, reason)
            self._known.put(key_of(sql), intent)

    def replace_catalog(self, catalog: Catalog) -> None:
        """Judge by `catalog` from now on; forgets what was judged or learnt by the one before."""
        judge = Judge(catalog, *self._functions)
        with self._lock:
            self._judge = judge
            self._forget()

    def given(self, sql: str, intent: Intent, sets: Iterable[Any]) -> Intent:
        """What `sql`, which does `intent` as far as its text says, does with all `sets` of
        parameters, as drivers take them: `Intent.parameters` says which of them are looked at."""
        keys = intent.parameters
        found = dict.fromkeys(settings.values(keys, each) for each in sets)
        if not found or len(found) > _SETS:
            return intent
        return _strongest(list(dict.fromkeys(self._with(sql, intent, v) for v in found)))

    def _with(self, sql: str, intent: Intent, values: tuple[settings.Value, ...]) -> Intent:
        """What `sql` does whose parameters at the places that `intent` names have `values`."""
        if all(v is None for v in values):
            return replace(intent, parameters=())
        with self._lock:
            cache, judge = self._given, self._judge
            key = key_of(sql), values
            found = cache.entries.get(key)
            if found is not None:
                return found
            self._misses += 1
        found = _classified(sql, judge, dict(zip(intent.parameters, values, strict=True)))
        found = replace(found, hint=intent.hint)
        with self._lock:
            cache.put(key, found)
        return found

    def _miss(self, sql: str) -> Intent:
        key = key_of(sql)
        with self._lock:
            cache, learnt, judge = self._known, self._learnt, self._judge
            found = cache.entries.get(key)
            if found is not None:
                return found
            self._misses += 1
        intent = self._decide(sql, judge)
        if learnt.entries and intent.kind is not Kind.WRITE:
            reason = learnt.entries.get(_alike(sql))
            intent = intent if reason is None else refused(intent, reason)
        if self._hints:
            intent = _hinted(sql, intent)
        lost = intent.reason.startswith(NOT_PARSED) and _BEGINS_LIKE_A_READ.match(sql)
        with self._lock:
            if lost:
                count, first = self.unparsed
                self.unparsed = count + 1, first or sql[lost.start(1) :][:_SHOWN]
            if key not in cache.entries:  # else it was learnt meanwhile
                cache.put(key, intent)
            return cache.entries[key]

    def _decide(self, sql: str, judge: Judge) -> Intent:
        for pattern in self._write:
            if pattern.search(sql):
                return Intent(Kind.WRITE, f"matches write_patterns {pattern.pattern!r}")
        for pattern in self._read:
            if pattern.search(sql):
                return Intent(Kind.READ, f"matches read_patterns {pattern.pattern!r}")
        if self._rule is not None:
            said = self._rule(sql)
            if isinstance(said, Kind):
                return Intent(said, "the rule given by the user")
            if said is not None:
                return replace(said, parameters=())  # it has the last word
        return _classified(sql, judge)


_Given = tuple[str | bytes, tuple[settings.Value, ...]]


def _alike(sql: str) -> str | bytes:
    """What texts share that differ from `sql` in comments and constants only, where it parses."""
    text = shortened(sql)
    try:
        return parser.fingerprint(text)
    except (parser.NotParsed, RecursionError, ValueError, MemoryError):
        return key_of(text)
