"""The journal of session state, held against a model that is nothing but lists."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rules.journal import Entry, Journal, entries, streamed
from router.sql.classifier import classify
from router.sql.intent import Kind

Set = tuple[str, bool]  # text, local
Step = tuple[str, str]


class Model:
    """What a server session holds: settings in force, and a copy for each mark it can go back to.

    Source: https://www.postgresql.org/docs/current/sql-rollback-to.html
    """

    def __init__(self) -> None:
        self.now: list[Set] = []
        self.begun: list[Set] | None = None
        self.marks: list[tuple[str, list[Set]]] = []

    def do(self, verb: str, name: str) -> None:
        match verb:
            case "begin":
                self.begun = list(self.now) if self.begun is None else self.begun
            case "set":
                self.now = [*self.now, (name, False)]
            case "local":
                self.now = [*self.now, (name, True)] if self.begun is not None else self.now
            case "savepoint" if self.begun is not None:
                self.marks = [*self.marks, (name, list(self.now))]
            case "back" if name in dict(self.marks):
                while self.marks[-1][0] != name:
                    self.marks.pop()
                self.now = list(self.marks[-1][1])
            case "release" if name in dict(self.marks):
                while self.marks.pop()[0] != name:
                    pass
            case "commit":
                self.now = [s for s in self.now if not s[1]]
                self.begun, self.marks = None, []
            case "rollback":
                self.now = self.now if self.begun is None else self.begun
                self.begun, self.marks = None, []


def play(steps: Iterable[Step]) -> tuple[Journal, Model]:
    """Run the steps on both, telling the journal what an adapter would tell it."""
    journal, model = Journal(), Model()
    for i, (verb, name) in enumerate(steps):
        begun, text = model.begun is not None, f"{name}{i}"
        match verb:
            case "set":
                journal.add(Entry(text, (i,), False), transactional=begun)
            case "local" if begun:
                journal.add(Entry(text, (i,), True), transactional=True)
            case "savepoint" if begun:
                journal.savepoint(name)
            case "back" if begun:
                journal.rollback_to(name)
            case "release" if begun:
                journal.release(name)
            case "commit":
                journal.commit()
            case "rollback":
                journal.rollback()
        model.do(verb, text if verb in ("set", "local") else name)
        assert [(e.sql, e.local) for e in journal.entries] == model.now
        outside = model.now if model.begun is None else model.begun
        assert [(e.sql, e.local) for e in journal.committed()] == outside
        assert bool(journal) is bool(model.now)
        if model.begun is None:
            assert not journal.in_transaction
        elif model.now != model.begun:
            assert journal.in_transaction
    return journal, model


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["begin", "set", "local", "savepoint", "back", "release", "commit", "rollback"]
            ),
            st.sampled_from(["a", "b"]),
        ),
        max_size=30,
    )
)
def test_the_journal_holds_what_the_server_holds(steps: list[Step]) -> None:
    """After any settings, savepoints and ends, the journal is exactly what is in force."""
    play(steps)


def test_entries_keep_order_text_and_parameters() -> None:
    """What is replayed is what was run: the same text with its parameters, in its order."""
    journal = Journal()
    one = Entry("SELECT set_config(%s, %s, false)", ("a", "1"), False)
    two = Entry("SET x = 1", None, False, ("x",))
    assert journal.add(one, transactional=False) is one
    assert journal.add(two, transactional=False) is two
    assert journal.entries == [one, two]


def added(sql: str, parameters: object, *row: str | None, many: bool = False) -> list[Entry]:
    """What a statement adds to a journal, where its settings are afterwards as `row` says."""

    def ask(sql: str) -> tuple[str | None, ...]:
        assert sql.count("current_setting(") == len(row)
        return row

    return list(entries(sql, classify(sql), parameters, many=many, ask=ask))


def test_a_constant_is_journaled_as_it_was_run() -> None:
    """Nothing is asked for; and whoever owns the parameters may change them."""
    sql, parameters = "SELECT set_config('a.b', %s, false)", ["1"]
    (entry,) = added(sql, parameters)
    parameters[0] = "2"
    assert (entry.sql, entry.parameters, entry.settings) == (sql, ["1"], ("a.b",))
    (entry,) = added("SELECT set_config('a.b', %(x)s, true)", {"x": "1"})
    assert (entry.parameters, entry.local) == ({"x": "1"}, True)


def test_each_set_of_parameters_is_an_entry() -> None:
    """As each of them was run."""
    found = added("SELECT set_config('a.b', %s, false)", [("1",), ("2",)], many=True)
    assert [e.parameters for e in found] == [("1",), ("2",)]


def test_what_was_computed_is_journaled_as_it_came_out() -> None:
    """With quotes and backslashes, and without parameters; a setting that is none was not made."""
    sql = "SELECT set_config('a.b', now()::text, true), set_config('a.c', version(), true)"
    (entry,) = added(sql, ("x",), "it's", "C:\\x")
    assert entry.sql == (
        "SELECT set_config('a.b', 'it''s', true), set_config('a.c', E'C:\\\\x', true)"
    )
    assert (entry.parameters, entry.local) == (None, True)
    assert set(entry.settings or ()) == {"a.b", "a.c"}
    assert added("SELECT set_config('a.b', version(), false)", None, None) == []
    assert not classify(entry.sql).computed


@pytest.mark.parametrize("local", [True, False])
def test_a_setting_made_row_by_row_is_not_journaled(local: bool) -> None:
    """It is a write that binds, unless it ends with its transaction."""
    intent = classify(f"SELECT set_config('a.b', '1', {local})")
    assert streamed(intent, rows=False) is intent
    found = streamed(intent)
    assert (found.kind, found.binds, found.holds) == (Kind.WRITE, not local, not local)
    read = classify("SELECT 1")
    assert streamed(read) is read


def test_equal_statements_are_different_entries() -> None:
    """The same text run twice is two entries, so replaying one does not skip the other."""
    assert Entry("SET x = 1", None, False) != Entry("SET x = 1", None, False)


def test_what_a_savepoint_named_twice_goes_back_to() -> None:
    """A name used twice means the newer savepoint, and the older again once that is released."""
    shadowed = [("begin", ""), ("savepoint", "a"), ("set", "x"), ("savepoint", "a"), ("set", "y")]
    journal, _ = play([*shadowed, ("back", "a")])
    assert [e.sql for e in journal.entries] == ["x2"]
    journal, _ = play([*shadowed, ("release", "a"), ("back", "a")])
    assert journal.entries == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_local_setting_ends_with_its_transaction(end: str) -> None:
    """Nothing local outlives the transaction, however it ended."""
    journal, _ = play([("set", "k"), ("begin", ""), ("local", "x"), (end, "")])
    assert [e.sql for e in journal.entries] == ["k0"]
    assert not journal.in_transaction


def test_an_unknown_savepoint_changes_nothing() -> None:
    """A rollback to a name the journal never saw leaves it as it is."""
    journal, _ = play([("begin", ""), ("set", "x"), ("back", "z"), ("release", "z")])
    assert [e.sql for e in journal.entries] == ["x1"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([("a",), ("b",), ("a", "b"), ("role",), None]),
            st.integers(0, 9),
        ),
        max_size=12,
    )
)
def test_what_was_set_again_is_forgotten_and_nothing_else(
    sets: list[tuple[tuple[str, ...] | None, int]],
) -> None:
    """Replaying what is left gives every setting its last value, under the role it was set by; and
    no more is left than there are settings, between two statements nobody knows the effect of."""
    journal = Journal()
    for names, value in sets:
        journal.add(Entry(str(value), None, local=False, settings=names), transactional=False)
    before = list(journal.entries)
    journal.forget(journal.superseded())

    def replayed(entries: list[Entry]) -> tuple[dict[str, str], list[Entry]]:
        now: dict[str, str] = {}
        for entry in entries:
            now.update(dict.fromkeys(entry.settings or (), entry.sql))
        return now, [e for e in entries if e.settings is None]

    assert replayed(journal.entries) == replayed(before)
    if not any(names is None or "role" in names for names, _ in sets):
        assert len(journal.entries) <= 2


def test_in_a_transaction_nothing_is_forgotten() -> None:
    """A rollback brings back what stood before, so all of it is kept until the end."""
    journal = Journal()
    for _ in range(3):
        journal.add(Entry("set", None, local=False, settings=("a",)), transactional=True)
    assert journal.superseded() == []
    journal.commit()
    assert len(journal.superseded()) == 2
