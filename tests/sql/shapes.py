"""Texts that nest, and texts that are long but flat, to try the parser's stack and time by."""

from typing import NamedTuple


class Shape(NamedTuple):
    """A text with a part that is repeated on its left and one on its right."""

    head: str
    left: str
    middle: str
    right: str = ""
    tail: str = ""

    def text(self, n: int) -> str:
        """The text that nests `n` levels."""
        return f"{self.head}{self.left * n}{self.middle}{self.right * n}{self.tail}"

    def __str__(self) -> str:
        return self.text(2)


def _shapes(head: str, lines: str, tail: str = "") -> list[Shape]:
    """A shape a line: what is repeated on the left, the middle, what is repeated on the right."""
    found = []
    for line in lines.strip().splitlines():
        left, middle, right = (*line.strip().split("¦"), "", "")[:3]
        found.append(Shape(head, left, middle, right, tail))
    return found


NESTING = [
    *_shapes("SELECT ", """
        1+¦1
        NOT ¦a
        - ¦a
        @ ¦a
        OPERATOR(pg_catalog.-) ¦a
        ¦a¦::int
        ¦a¦ || b
        ¦a¦->'x'
        ¦a¦ OPERATOR(pg_catalog.+) 1
        ¦a¦ IS NULL
        ¦a¦ NOTNULL
        ¦a¦ IS NOT TRUE
        ¦a¦ IS NOT DOCUMENT
        ¦a¦ IS NOT JSON
        ¦a¦ IS NOT NORMALIZED
        ¦a¦ BETWEEN 1 AND 2 IS NULL
        ¦a¦ COLLATE "C"
        ¦a¦ AT TIME ZONE b
        ¦a¦ AT LOCAL
        (¦a¦)
        (¦a¦ || b)
        -(¦a¦)
        NOT (¦a¦)
        f(¦a¦)
        f(b => ¦a¦)
        coalesce(1, ¦a¦)
        CAST(¦a¦ AS int)
        EXTRACT(y FROM ¦a¦)
        ROW(¦a¦)
        (1, ¦a¦)
        (a AND (b OR ¦c¦))
        ARRAY[¦1¦]
        b[¦a¦]
        a IN (¦1¦)
        a NOT LIKE b ESCAPE (¦c¦)
        a SIMILAR TO (¦c¦)
        a = ANY (¦b¦)
        a = ANY (SELECT ¦b¦)
        (a, b) OVERLAPS (c, ¦d¦)
        CASE WHEN a AND b THEN 1 ELSE ¦1¦ END
        CASE WHEN ¦true¦ THEN true END
        1 + CASE WHEN a AND b AND c THEN 2 * ¦1¦ END
        (SELECT ¦1¦)
        (SELECT 1, ¦1¦)
        (SELECT 1 WHERE a AND ¦b¦)
        (SELECT a, b HAVING a AND ¦b¦)
        (SELECT 1 ORDER BY 1, ¦2¦)
        (SELECT 1, 2 LIMIT ¦1¦)
        (TABLE t UNION SELECT ¦1¦)
        EXISTS(SELECT ¦1¦)
        ARRAY(SELECT ¦1¦)
        sum(¦1¦) OVER ()
        sum(1) OVER (ORDER BY ¦1¦)
        sum(1) FILTER (WHERE ¦a¦)
        f() WITHIN GROUP (ORDER BY ¦a¦)
        XMLELEMENT(NAME a, XMLATTRIBUTES(¦a¦ AS b))
        JSON_OBJECT('a': ¦1¦)
        JSON_OBJECT(KEY 'a' VALUE ¦1¦)
        JSON_OBJECTAGG('a' VALUE ¦1¦)
        JSON_ARRAY(¦1¦)
        JSON_ARRAY(SELECT ¦1¦)
        JSON_ARRAYAGG(1 ORDER BY ¦1¦)
        JSON_QUERY(a, '$' PASSING ¦1¦ AS x)
        JSON_VALUE(a, '$' DEFAULT ¦1¦ ON ERROR)
        """),
    *_shapes("SELECT 1 ", """
        ¦¦ UNION SELECT 1
        ¦¦ UNION SELECT a, b INTERSECT VALUES (1, 2)
        UNION (SELECT 1 ¦¦)
        """),
    *_shapes("SELECT * FROM ", """
        ¦t¦ JOIN t ON true
        ¦t¦ JOIN t ON a = b AND c = d
        ¦t¦ NATURAL JOIN t
        t JOIN ¦t¦ ON true
        (¦t¦ JOIN t ON true)
        (SELECT * FROM ¦t¦) a
        (WITH x AS (SELECT 1) SELECT 1, (SELECT a FROM ¦t¦)) y
        t LEFT JOIN LATERAL (SELECT 1 FROM ¦t¦) x ON true
        f((SELECT a FROM ¦t¦))
        """),
    *_shapes("SELECT 1 GROUP BY ", "GROUPING SETS (¦a¦)\nCUBE (¦a¦)"),
    *_shapes("", "WITH a AS (¦SELECT 1¦) SELECT 1\n(¦SELECT 1¦)\n(¦SELECT 1¦) UNION SELECT 1"),
    *_shapes("WITH x AS (SELECT 1), a AS (", "WITH a AS (¦SELECT 1¦) SELECT 1", ") SELECT 1"),
    *_shapes("CREATE VIEW v AS SELECT ", "(SELECT ¦1¦)"),
    *_shapes("CREATE TABLE t (a int DEFAULT ", "f(¦1¦)", ")"),
    *_shapes("", "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC ¦SELECT 1;¦ END;"),
]  # fmt: skip
"""Shapes whose depth grows with the number of repetitions."""

FLAT = [
    *_shapes("SELECT name FROM users WHERE id IN (", """
        1, ¦1
        -1, ¦1
        $1::INTEGER, ¦$1
        %s, ¦%s
        %(id_1)s::INTEGER, ¦%(id_2)s
        """, ")"),
    *_shapes("SELECT name FROM users WHERE ", """
        ¦id = 1¦ AND id = 2
        ¦id = 1¦ OR id = 2 AND name = 'x'
        ¦id = 1¦ OR id BETWEEN 1 AND 2
        ¦(id = 1 AND name = 'x')¦ OR (id = 2 AND name = 'y')
        ¦id = %(id_1)s¦ OR id = %(id_2)s
        """),
    *_shapes("SELECT ", "users.name AS users_name, ¦users.id¦", " FROM users"),
    *_shapes("SELECT ", "count(*) FILTER (WHERE id = 1 AND name <> 'x'), ¦1¦", " FROM users"),
    *_shapes("SELECT * FROM (VALUES (1, 'a')", "¦¦, (2, 'b')", ") v JOIN users USING (id)"),
    *_shapes("SELECT id FROM users WHERE name = '", "NOT ((((1+'' ¦x¦", "'"),
    *_shapes("SELECT /* ", "(((( NOT - ¦x¦", " */ 1 FROM users"),
]  # fmt: skip
"""Shapes that are reads however often the part is repeated, because nothing nests."""
