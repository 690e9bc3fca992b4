"""The tables of "What goes where", made by the classifier itself so that they cannot drift."""

from router.sql import functions
from router.sql.builtins import RELATIONS
from router.sql.catalog import Catalog
from router.sql.classifier import classify
from router.sql.closure import FOREIGN, SEQUENCE, UNLOGGED
from router.sql.intent import Intent, Kind
from router.sql.objects import Effect, Function, Relation, Verdict

EXAMPLES = """
SELECT name FROM users WHERE id = %(id)s
SELECT count(*) FROM users u JOIN orders o USING (id) GROUP BY u.name HAVING count(*) > 3
WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT n FROM t
VALUES (1), (2)
TABLE users
SELECT random(), now(), gen_random_uuid()
SHOW search_path
SHOW transaction_read_only
SELECT pg_backend_pid()
SELECT * FROM pg_locks
EXPLAIN SELECT * FROM users
COPY users TO STDOUT
DECLARE c CURSOR FOR SELECT * FROM users
INSERT INTO users VALUES (1)
INSERT INTO users VALUES (1) RETURNING id
UPDATE users SET name = 'x'
DELETE FROM users
MERGE INTO users u USING orders o ON u.id = o.id WHEN MATCHED THEN DELETE
WITH gone AS (DELETE FROM users RETURNING *) SELECT count(*) FROM gone
SELECT * INTO copied FROM users
SELECT * FROM users FOR UPDATE SKIP LOCKED
SELECT * FROM (SELECT * FROM users FOR SHARE) locked
SELECT nextval('users_id_seq')
SELECT last_value FROM users_id_seq
SELECT pg_advisory_xact_lock(1)
SELECT pg_advisory_lock(1)
SELECT writes_something(1)
SELECT not_in_the_catalog(1)
SELECT * FROM not_in_the_catalog
SELECT * FROM cache_unlogged
SELECT * FROM far_away
EXPLAIN ANALYZE DELETE FROM users
EXPLAIN ANALYZE SELECT * FROM users
COPY users FROM STDIN
COPY users TO PROGRAM 'gzip > /tmp/users.gz'
COPY users TO '/tmp/users'
CREATE TABLE t (a int)
CREATE TEMP TABLE t (a int)
TRUNCATE users
VACUUM users
CALL tidy()
DO 'BEGIN NULL; END'
LOCK TABLE users IN ACCESS SHARE MODE
LISTEN news
NOTIFY news
PREPARE p AS SELECT 1
EXECUTE p
SELECT 1; DELETE FROM users
SELECT 1; SELECT 2
SET search_path = shop
SET LOCAL app.tenant = '7'
SET ROLE reader
SELECT set_config('app.tenant', %s, true)
RESET ALL
DISCARD ALL
BEGIN
BEGIN READ ONLY
START TRANSACTION ISOLATION LEVEL SERIALIZABLE
SAVEPOINT a
COMMIT
SELEC 1
""".strip().splitlines()

_RELATIONS = (
    Relation("public", "users"),
    Relation("public", "orders"),
    Relation("public", "users_id_seq", Verdict(Effect.ACTS, f"users_id_seq {SEQUENCE}")),
    Relation("public", "cache_unlogged", Verdict(Effect.REFUSED, f"cache_unlogged {UNLOGGED}")),
    Relation("public", "far_away", Verdict(Effect.ACTS, f"far_away {FOREIGN}")),
)
_WRITES = Function(
    "public", "writes_something", 1, 1,
    Verdict(Effect.REFUSED, "calls public.writes_something(): INSERT"),
)  # fmt: skip
CATALOG = Catalog(
    loaded=True,
    relations={relation.name: (relation,) for relation in _RELATIONS},
    functions={"writes_something": (_WRITES,)},
)


def statements() -> str:
    """Each example and what the classifier calls it, as a Markdown table."""
    rows = ["| statement | is | because | beside that |", "|---|---|---|---|"]
    for sql in EXAMPLES:
        intent = classify(sql, CATALOG)
        shown = sql.replace("|", "\\|")
        rows.append(f"| `{shown}` | {goes(intent)} | {intent.reason} | {beside(intent)} |")
    return "\n".join(rows)


def goes(intent: Intent) -> str:
    """The kind, as the page explains it."""
    return {
        Kind.READ: "a read",
        Kind.WRITE: "a write",
        Kind.SESSION: "session state",
        Kind.TRANSACTION: "transaction control",
    }[intent.kind]


def beside(intent: Intent) -> str:
    """What else follows from it."""
    notes = []
    if intent.server_local:
        notes.append("of the primary")
    if intent.binds:
        notes.append("binds the checkout to the primary")
    if intent.local:
        notes.append("until the transaction ends")
    if intent.needs_transaction:
        notes.append("in a real transaction")
    if intent.read_only:
        notes.append("on a replica")
    if intent.ddl:
        notes.append("the catalog is read again")
    return "; ".join(notes)


def grouped(table: "dict[str, str]", head: str = "| reason | functions |") -> str:
    """What is in `table` by reason, as a Markdown table."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(table.items()):
        by_reason.setdefault(reason, []).append(f"`{name}`")
    rows = [head, "|---|---|"]
    rows += [f"| {reason} | {', '.join(names)} |" for reason, names in sorted(by_reason.items())]
    return "\n".join(rows)


def unsafe() -> str:
    """Built-in functions that only the primary may run."""
    return grouped(dict(functions.UNSAFE))


def server_local() -> str:
    """Functions, with brackets, and relations whose answer is the server's own."""
    shown = {}
    for name, reason in functions.LOCAL.items():
        many = name.startswith("pg_stat_get_")  # one for each column of the views
        called = "pg_stat_get_*()" if many else f"{name}()"
        shown[name if name in RELATIONS else called] = reason
    return grouped(shown, "| what it is about | functions and relations |")


def local_settings() -> str:
    """Settings that are another on a replica by its nature."""
    rows = [f"| `{name}` | {why} |" for name, why in functions.LOCAL_SETTINGS.items()]
    return "\n".join(["| setting | why |", "|---|---|", *rows])


def harmless() -> str:
    """Volatile built-in functions that a replica may run."""
    return grouped(dict(functions.HARMLESS))


def vouched() -> str:
    """Extensions whose functions in C are believed."""
    return ", ".join(f"`{name}`" for name in sorted(functions.VOUCHED))
