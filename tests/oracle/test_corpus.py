"""How psql's scripts are taken apart, as psql does it."""

import pytest

from tests.oracle.corpus import Connect, Script, Statement


def texts(script: str) -> list[str]:
    return [s.text for s in Script(script) if isinstance(s, Statement)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select ';', E'\\';', \";\" ;", ["select ';', E'\\';', \";\""]),
        ("select $a$ ; $$ ; $a$; select 2;", ["select $a$ ; $$ ; $a$", "select 2"]),
        ("-- a;\nselect /* ; /* ; */ ; */ 1; -- b;\n", ["select   1"]),
        ("create rule r as do (a; b);", ["create rule r as do (a; b)"]),
        (
            "create or replace function f() begin atomic x case when a then b end; end; x;",
            ["create or replace function f() begin atomic x case when a then b end; end", "x"],
        ),
        ("begin; end; select 1;", ["begin", "end", "select 1"]),
        ("select 1 \\; select 2;", ["select 1 ; select 2"]),
        ("select a::int, b[1:2];", ["select a::int, b[1:2]"]),
        ("\\d t\nselect 1;\n\\echo 'a;b' c\nselect 2;", ["select 1", "select 2"]),
        ("select 1 \\g | cat\nselect 2 \\gx\n", ["select 1", "select 2"]),
        ("select 1 \\gdesc\nselect 2;", ["select 2"]),
        ("\\set x 'it''s'\nselect :'x', :\"x\", :y;", ["select 'it''s', \"it's\", :y"]),
        ("\\set x 1\nselect :{?x}, :{?y}, :x;", ["select TRUE, FALSE, 1"]),
        ("\\if false\nselect 1;\n\\if true\nselect 2;\n\\endif\n\\else\nselect 3;\n\\endif", [
            "select 3"
        ]),
        ("select 1;\n\\q\nselect 2;", ["select 1"]),
    ],
)  # fmt: skip
def test_statements(script: str, expected: list[str]) -> None:
    assert texts(script) == expected


def test_what_is_done_with_an_answer() -> None:
    script = Script("select 1 as a \\gset p_\nselect :p_a;\n\\c - joe\nselect $1 \\bind 'x y' \\g")
    found = []
    for each in script:
        found.append(each)
        if isinstance(each, Statement) and each.ended == "gset":
            script.variables[each.argument + "a"] = "5"
    assert found == [
        Statement("select 1 as a", 1, "gset", "p_"),
        Statement("select 5", 2),
        Connect("", "joe"),
        Statement("select $1", 4, "g", "", ["x y"]),
    ]


def test_data_is_no_statement() -> None:
    script = Script(
        "copy t from stdin;\n1\n2\n\\.\nselect 1;\ncopy nowhere from stdin;\nselect 2;"
    )
    found = []
    for each in script:
        assert isinstance(each, Statement)
        found.append(each.text)
        if each.text.startswith("copy") and script.has_data():
            found.append(script.data())
    copies = ["copy t from stdin", "1\n2\n", "select 1", "copy nowhere from stdin", "select 2"]
    assert found == copies
