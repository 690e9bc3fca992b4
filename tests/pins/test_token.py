"""The signed token: what goes in comes out, and nothing else is ever believed."""

import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import ConfigError
from router.model import Lsn
from router.pins.token import MAX_ENTRIES, MAX_TOKEN, Entry, Fault, Tokens, merged

SECRET = "correct horse battery staple"
OLD = "an older secret, still known"
NOW = 1_700_000_000.0

hexes = st.text("0123456789abcdef", min_size=12, max_size=12)
ids = st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}")
written = st.integers(int((NOW - 59) * 1000), int((NOW + 5) * 1000)).map(lambda ms: ms / 1000)
known = st.builds(
    Entry,
    ids,
    written,
    st.integers(0, 2**64 - 1).map(Lsn),
    st.integers(1, 2**32 - 1),
)
unknown = st.builds(Entry, ids, written, mark=hexes)
entries = st.lists(known | unknown, min_size=1, max_size=MAX_ENTRIES)

TOKENS = Tokens(SECRET, 60.0)


def entry(cluster: str = "shop", at: float = NOW, lsn: int | None = 7) -> Entry:
    name = TOKENS.ids(cluster)[0]
    if lsn is None:
        return Entry(name, at, mark="0123456789ab")
    return Entry(name, at, Lsn(lsn), 1)


@given(entries)
def test_what_was_signed_is_read_again(given_entries: list[Entry]) -> None:
    """Every entry survives the way through a token, which holds only characters a cookie may."""
    token = TOKENS.sign(given_entries)
    found = TOKENS.read(token, NOW)
    assert not isinstance(found, Fault)
    assert sorted(found, key=repr) == sorted(given_entries, key=repr)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_.~")
    assert len(token) <= MAX_TOKEN


@given(st.binary(max_size=2000))
def test_no_byte_string_is_believed_or_raises(data: bytes) -> None:
    """Whatever a stranger sends is a Fault, as text of any encoding."""
    assert isinstance(TOKENS.read(data.decode("latin-1"), NOW), Fault)
    assert isinstance(TOKENS.read(data.decode("utf-8", "surrogateescape"), NOW), Fault)


@given(st.text(max_size=200).map(lambda text: TOKENS._signer.sign(text.encode()).decode()))
def test_no_signed_text_raises(token: str) -> None:
    """Not even text signed with our own secret, by another version, makes reading raise."""
    assert isinstance(TOKENS.read(token, NOW), Fault)


@given(entries, st.data())
def test_one_changed_character_is_noticed(given_entries: list[Entry], data: st.DataObject) -> None:
    """A token with any character replaced, or cut anywhere, is not believed."""
    token = TOKENS.sign(given_entries)
    at = data.draw(st.integers(0, len(token) - 1))
    assert isinstance(TOKENS.read(token[:at], NOW), Fault)
    other = data.draw(st.sampled_from(string.printable).filter(lambda c: c != token[at]))
    changed = TOKENS.read(token[:at] + other + token[at + 1 :], NOW)
    # The last of 43 characters of base64 holds two bits that mean nothing.
    assert isinstance(changed, Fault) or (
        at == len(token) - 1 and changed == TOKENS.read(token, NOW)
    )


def test_a_megabyte_is_not_looked_at() -> None:
    """A token beyond the cap is refused before anything is computed, signed well or not."""
    assert TOKENS.read("x" * 1_000_000, NOW) is Fault.TOO_LONG
    signed = TOKENS._signer.sign(b"1" + b"~" * 1_000_000).decode()
    assert TOKENS.read(signed, NOW) is Fault.TOO_LONG


def test_a_token_expires() -> None:
    """An entry counts for `max_age` seconds after its write; the others of its token live on."""
    old, new = entry("old", NOW - 50), entry("new", NOW)
    token = TOKENS.sign([old, new])
    assert TOKENS.read(token, NOW + 10) == (new, old)
    assert TOKENS.read(token, NOW + 10.001) == (new,)
    assert TOKENS.read(token, NOW + 60.001) is Fault.EXPIRED


def test_a_clock_that_is_behind_reads_it_all_the_same() -> None:
    """A write that lies in the future, by this host's clock, is believed."""
    assert TOKENS.read(TOKENS.sign([entry()]), NOW - 3) == (entry(),)


def test_secrets_rotate() -> None:
    """The first secret signs and all verify; a secret nobody knows any more is not believed."""
    both, back = Tokens([SECRET, OLD], 60.0), Tokens([OLD, SECRET], 60.0)
    by_new, by_old = both.sign([entry()]), back.sign([entry()])
    assert TOKENS.read(by_new, NOW) == both.read(by_old, NOW) == (entry(),)
    assert TOKENS.read(by_old, NOW) is Fault.TAMPERED
    assert Tokens(SECRET, 60.0).sign([entry()]) == by_new


def test_a_cluster_has_one_name_for_each_secret() -> None:
    """Whoever signed, the reader finds its cluster; without the secret the name says nothing."""
    both = Tokens([SECRET, OLD], 60.0)
    assert both.ids("db1:5432/shop") == (
        *TOKENS.ids("db1:5432/shop"),
        *Tokens(OLD, 60.0).ids("db1:5432/shop"),
    )
    assert len({*both.ids("shop"), *both.ids("blog")}) == 4
    assert "db1" not in TOKENS.sign([entry("db1:5432/shop")])


def test_more_clusters_than_a_token_holds() -> None:
    """Of too many clusters the newest writes are kept."""
    many = [entry(f"c{i}", NOW - i) for i in range(MAX_ENTRIES + 3)]
    assert TOKENS.read(TOKENS.sign(reversed(many)), NOW) == tuple(many[:MAX_ENTRIES])


@pytest.mark.parametrize(
    "secret", ["", "short", [], [SECRET, "short"]], ids=["empty", "short", "none", "one of two"]
)
def test_a_weak_secret_is_refused(secret: str | list[str]) -> None:
    """A secret of fewer than 16 characters is refused, with the cure and without the secret."""
    with pytest.raises(ConfigError, match=r"secret: .*token_urlsafe") as caught:
        Tokens(secret, 60.0)
    assert "short" not in str(caught.value)


def test_a_life_without_length_is_refused() -> None:
    """`max_age` must be positive."""
    with pytest.raises(ConfigError, match="max_age"):
        Tokens(SECRET, 0)


@given(known, known)
def test_a_store_keeps_the_greater_of_two_positions(one: Entry, other: Entry) -> None:
    """Saved in any order, the position that covers both is kept."""
    other = replace(other, timeline=one.timeline)
    pair = [{"c": Entry("0" * 16, e.written, e.lsn, e.timeline).value} for e in (one, other)]
    kept = merged(merged({}, pair[0]), pair[1])
    assert kept == merged(merged({}, pair[1]), pair[0])
    found = Entry.parse("0" * 16, kept["c"])
    assert found is not None
    assert (found.timeline, found.lsn) == max((one.timeline, one.lsn), (other.timeline, other.lsn))


@pytest.mark.parametrize(
    ("timeline", "lsn", "later", "replaced"),
    [
        (6, 1, -1, True),
        (4, 1, 0.001, True),
        (4, 9, 0, False),
        (5, 1, 60, False),
        (5, 1, 60.001, True),
    ],
    ids=["promoted", "lower timeline", "not later", "within ttl", "after ttl"],
)
def test_a_store_follows_a_cluster_to_smaller_positions(
    timeline: int, lsn: int, later: float, replaced: bool
) -> None:
    """A position gives way to a later write on a lower timeline, and to any after its life."""
    stored, new = entry(at=NOW), entry(at=NOW + later)
    stored = replace(stored, timeline=5, lsn=Lsn(5))
    new = replace(new, timeline=timeline, lsn=Lsn(lsn))
    kept = merged({"c": stored.value}, {"c": new.value}, 60.0)["c"]
    assert kept == (new if replaced else stored).value


def test_a_store_keeps_the_last_unknown_position_beside_a_known_one() -> None:
    """An entry "as of now" gives way to a later one, whatever the clocks say, and only to that."""
    early, late = entry(at=NOW + 5, lsn=None), entry(at=NOW, lsn=None)
    saved = merged({early.field: early.value}, {late.field: late.value})
    saved = merged(saved, {entry().field: entry().value})
    assert saved == {late.field: late.value, entry().field: entry().value}
