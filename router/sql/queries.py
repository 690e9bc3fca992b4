"""What the server is asked of its catalog: SQL text, for PostgreSQL 13 and later.

Any role that may log in may run these, on the primary or a replica, in any order. They take no
lock: expressions are read as the trees PostgreSQL stores, which name objects by oid. An oid below
16384 is one that initdb gave; whatever has a greater one counts as a user's, in whatever schema.
Source: FirstNormalObjectId in
https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/access/transam.h
"""

from collections.abc import Mapping
from types import MappingProxyType

from router.sql import functions

FIRST = 16384
"""FirstNormalObjectId: the least oid of what initdb did not make."""

_SCHEMA = f"n.nspname !~ '^pg_(temp|toast)' and {{}}.oid >= {FIRST}"

# Those of PostgreSQL's own in SQL too: who owns them may replace them.
_FUNCTIONS = f"""
    select p.oid::int8, n.nspname, p.proname, p.pronargs, p.pronargdefaults, p.provariadic <> 0,
        p.provolatile = 'v', l.lanname,
        case when l.lanname in ('sql', 'plpgsql') then p.prosrc else '' end,
        case when l.lanname = 'sql' and p.prosrc = '' then to_jsonb(p) ->> 'prosqlbody' end,
        p.proargdefaults::text, p.prorettype::int8,
        coalesce(p.proallargtypes, p.proargtypes::oid[])::int8[],
        case when l.lanname = 'internal' and p.prokind <> 'a' then array(
            select b.oid::int8 from pg_catalog.pg_proc b
            where b.prosrc = p.prosrc and b.prolang = p.prolang and b.oid < {FIRST}
        ) end,
        case when l.lanname = 'c' then (
            select e.extname from pg_catalog.pg_depend d
            join pg_catalog.pg_extension e on e.oid = d.refobjid
            where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
                and d.refclassid = 'pg_catalog.pg_extension'::regclass and d.deptype = 'e'
        ) end,
        case when a.aggfnoid is not null then array[
            a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
            a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn
        ]::oid[]::int8[] end,
        a.aggsortop::int8, array[a.aggtranstype, a.aggmtranstype]::int8[],
        pg_catalog.oidvectortypes(p.proargtypes)
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
    join pg_catalog.pg_language l on l.oid = p.prolang
    left join pg_catalog.pg_aggregate a on a.aggfnoid = p.oid
    where n.nspname !~ '^pg_(temp|toast)'
        and (p.oid >= {FIRST} or l.lanname in ('sql', 'plpgsql'))
"""

# Views of PostgreSQL's own that somebody replaced by what uses an object of a user.
_REPLACED = f"""
    select r.ev_class from pg_catalog.pg_depend d
    join pg_catalog.pg_rewrite r on r.oid = d.objid
    where d.classid = 'pg_catalog.pg_rewrite'::regclass
        and d.objid < {FIRST} and d.refobjid >= {FIRST}
"""

_RELATIONS = f"""
    select c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
        c.reltype::int8, c.reloftype::int8,
        case when c.relkind = 'f' then (
            select p.probin from pg_catalog.pg_foreign_table f
            join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
            join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw
            join pg_catalog.pg_proc p on p.oid = w.fdwhandler
            where f.ftrelid = c.oid
        ) end
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_(temp|toast)' and (c.oid >= {FIRST} or c.oid in ({_REPLACED}))
        and c.relkind in ('r', 'v', 'm', 'f', 'p', 'S', 'c')
        and c.relpersistence <> 't'
"""

_COLUMNS = f"""
    select attrelid::int8, attname::text, atttypid::int8 from pg_catalog.pg_attribute
    where attrelid >= {FIRST} and attnum > 0 and not attisdropped and atttypid >= {FIRST}
"""

_EXPRESSIONS = f"""
    select ev_class::int8, case ev_type when '1' then 'view' else 'rule' end, rulename::text,
        ev_action::text || ' ' || coalesce(ev_qual::text, '')
    from pg_catalog.pg_rewrite where ev_class >= {FIRST} or ev_class in ({_REPLACED})
    union all
    select polrelid::int8, case when polcmd in ('r', '*') then 'policy' else 'check' end,
        polname::text, concat_ws(' ', polqual::text, polwithcheck::text)
    from pg_catalog.pg_policy join pg_catalog.pg_class c on c.oid = polrelid
    where c.relrowsecurity
    union all
    select adrelid::int8, case attgenerated when 'v' then 'virtual' else 'default' end,
        attname::text, adbin::text
    from pg_catalog.pg_attrdef
    join pg_catalog.pg_attribute on attrelid = adrelid and attnum = adnum
    where adrelid >= {FIRST} and (
        adbin::text !~ '^{{(CONST|SQLVALUEFUNCTION|FUNCEXPR :funcid (1574|1299)) '
        or adbin::text ~ 'FUNCEXPR.*FUNCEXPR'
    )
    union all
    select case when contypid <> 0 then contypid else conrelid end::int8,
        case when contypid <> 0 then 'domain' else 'constraint' end, conname::text, conbin::text
    from pg_catalog.pg_constraint where contype = 'c' and oid >= {FIRST}
    union all
    select indrelid::int8, 'index', c.relname::text,
        concat_ws(' ', indexprs::text, indpred::text)
    from pg_catalog.pg_index join pg_catalog.pg_class c on c.oid = indexrelid
    where indrelid >= {FIRST} and (indexprs is not null or indpred is not null)
    union all
    select s.stxrelid::int8, 'statistics', s.stxname::text, to_jsonb(s) ->> 'stxexprs'
    from pg_catalog.pg_statistic_ext s where to_jsonb(s) ->> 'stxexprs' is not null
    union all
    select partrelid::int8, 'partition', '', partexprs::text
    from pg_catalog.pg_partitioned_table where partexprs is not null
    union all
    select tgrelid::int8, 'when', tgname::text, tgqual::text
    from pg_catalog.pg_trigger where tgqual is not null
    union all
    select oid::int8, 'type default', typname::text, typdefaultbin::text
    from pg_catalog.pg_type where oid >= {FIRST} and typdefaultbin is not null
"""

_TYPES = f"""
    select t.oid::int8, n.nspname, t.typname, t.typtype::text, t.typbasetype::int8,
        t.typelem::int8, t.typrelid::int8,
        array(
            select f from unnest(array[
                t.typinput, t.typoutput, t.typreceive, t.typsend, t.typmodin, t.typmodout
            ]::oid[]::int8[]) f where f >= {FIRST}
        )
    from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    where {_SCHEMA.format("t")}
"""

_RANGES = f"""
    select rngtypid::int8, rngsubtype::int8, rngsubopc::int8,
        array[rngcanonical, rngsubdiff]::oid[]::int8[],
        (to_jsonb(r) ->> 'rngmultitypid')::int8
    from pg_catalog.pg_range r where rngtypid >= {FIRST}
"""

_CASTS = f"""
    select k.castsource::int8, k.casttarget::int8, k.castfunc::int8, k.castcontext::text,
        s.typname, t.typname
    from pg_catalog.pg_cast k join pg_catalog.pg_type s on s.oid = k.castsource
    join pg_catalog.pg_type t on t.oid = k.casttarget
    where k.oid >= {FIRST} and k.castfunc <> 0
"""

_OPERATORS = f"""
    select o.oid::int8, n.nspname, o.oprname, o.oprleft::int8, o.oprright::int8,
        array[o.oprcode, o.oprrest, o.oprjoin]::oid[]::int8[],
        array[o.oprcom, o.oprnegate]::int8[]
    from pg_catalog.pg_operator o join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
    where {_SCHEMA.format("o")} and o.oprcode <> 0
"""

# A row for each member of an operator family, and whether it is one of btree or hash.
_FAMILIES = f"""
    select amprocfamily::int8, amproclefttype::int8, amprocrighttype::int8, amproc::oid::int8, 0,
        f.opfmethod in (403, 405)
    from pg_catalog.pg_amproc m join pg_catalog.pg_opfamily f on f.oid = amprocfamily
    where m.oid >= {FIRST}
    union all
    select amopfamily::int8, amoplefttype::int8, amoprighttype::int8, 0, amopopr::int8,
        f.opfmethod in (403, 405)
    from pg_catalog.pg_amop m join pg_catalog.pg_opfamily f on f.oid = amopfamily
    where m.oid >= {FIRST}
"""

_CLASSES = f"""
    select oid::int8, opcname::text, opcfamily::int8
    from pg_catalog.pg_opclass where oid >= {FIRST}
"""

# Which operator classes order or hash the values of a table's indexes and partitions.
_USES = f"""
    select indrelid::int8, c::int8 from pg_catalog.pg_index, unnest(indclass::oid[]) c
    where c >= {FIRST}
    union all
    select partrelid::int8, c::int8 from pg_catalog.pg_partitioned_table,
        unnest(partclass::oid[]) c
    where c >= {FIRST}
"""

_INHERITS = "select inhparent::int8, inhrelid::int8 from pg_catalog.pg_inherits"

_TRIGGERS = f"""
    select tgrelid::int8, tgname::text, tgfoid::int8 from pg_catalog.pg_trigger
    where not tgisinternal and tgenabled <> 'D' and tgfoid >= {FIRST}
    union all
    select 0, evtname::text, evtfoid::int8 from pg_catalog.pg_event_trigger
    where evtenabled <> 'D' and evtevent <> 'login'
"""

# Foreign keys: rows may change that refer to a changed one, and TRUNCATE follows all of them.
_CASCADES = """
    select confrelid::int8, conrelid::int8 from pg_catalog.pg_constraint
    where contype = 'f'
"""


# Functions that make what they make without a schema in pg_temp.
_TEMPS = f"""
    select oid::int8 from pg_catalog.pg_proc
    where oid >= {FIRST} and proconfig::text ~* '[{{,"]search_path=[\\\\" ]*pg_temp'
"""


def _array(names: "frozenset[str] | set[str]") -> str:
    return "'{" + ",".join(sorted(names)) + "}'::text[]"


_BUILTINS = f"""
    select p.oid::int8, p.proname, p.pronargs from pg_catalog.pg_proc p
    where p.oid < {FIRST} and (
        p.provolatile = 'v' or p.proname = any ({_array({*functions.UNSAFE, *functions.LOCAL})})
    )
    union all
    select c.oid::int8, c.relname, -1 from pg_catalog.pg_class c
    where c.oid < {FIRST} and c.relname = any ({_array({*functions.PRIMARYS, *functions.LOCAL})})
"""

QUERIES: Mapping[str, str] = MappingProxyType(
    {
        "functions": _FUNCTIONS,
        "relations": _RELATIONS,
        "columns": _COLUMNS,
        "expressions": _EXPRESSIONS,
        "types": _TYPES,
        "ranges": _RANGES,
        "casts": _CASTS,
        "operators": _OPERATORS,
        "families": _FAMILIES,
        "classes": _CLASSES,
        "uses": _USES,
        "inherits": _INHERITS,
        "triggers": _TRIGGERS,
        "cascades": _CASCADES,
        "temps": _TEMPS,
        "builtins": _BUILTINS,
    }
)
"""What is asked, by name; each answer is a table of rows."""


_CHANGING = {
    "aggregate": "", "amop": "", "amproc": "", "cast": "", "event_trigger": "", "extension": "",
    "foreign_data_wrapper": "", "foreign_server": "", "foreign_table": "",
    "inherits": "", "opclass": "", "operator": "", "partitioned_table": "", "policy": "",
    "proc": "", "range": "", "statistic_ext": "", "trigger": "not tgisinternal",
    "attrdef": "", "constraint": "contype in ('c', 'f')",
    "index": "indexprs is not null or indpred is not null", "rewrite": "",
    "attribute": f"atttypid >= {FIRST}",
    "namespace": "nspname !~ '^pg_(temp|toast)'",
    "type": "typnamespace not in (select oid from pg_catalog.pg_namespace "
    "where nspname ~ '^pg_(temp|toast)')",
}  # fmt: skip

# Free of order: whatever a transaction writes adds its own number, which was not there before, and
# what it writes again or drops takes another away. The newest number alone would not show one that
# began earlier and is committed later. age() is cheap, and where a row was frozen it says so for
# all of them alike.
_STAMP = "sum(hashint8extended(age('3'::xid)::int8 - nullif(age(xmin), 2147483647), 0))"

# A row of pg_class is written again by TRUNCATE, REFRESH and the like, which change none of these.
_OF_CLASS = """(select concat(count(*), ':', sum(hashtextextended(concat_ws(' ', oid, relname,
    relnamespace, relkind, relpersistence, reltype, reloftype, relispopulated, relrowsecurity
    ), 0))) from pg_catalog.pg_class where relpersistence <> 't' and relkind <> 'i')"""

FINGERPRINT: str = "select concat_ws(' ', {}, {})".format(
    _OF_CLASS,
    ", ".join(
        f"(select concat(count(*), ':', {_STAMP}) from pg_catalog.pg_{table} "
        f"where {condition or 'true'})"
        for table, condition in _CHANGING.items()
    ),
)
"""One row and column, another one whenever an answer to `QUERIES` may be: for each table of the
catalog how many rows it has, and the sum of hashes of the transactions that wrote them, or of what
they say."""

MONITORS = "pg-router monitor"
"""The ``application_name`` of the connections that watch the servers."""

STAMP_PATIENCE = 0.25
"""Seconds the server may take for a stamp."""

STAMP: bytes = (
    f"SET LOCAL statement_timeout = {STAMP_PATIENCE * 1000:.0f};"
    "SET LOCAL search_path = pg_catalog;"
    f"select ({FINGERPRINT}), (select count(*) from pg_catalog.pg_stat_activity "
    f"where application_name = '{MONITORS}')"
).encode()
"""`FINGERPRINT`, and how many connections watch this server, in one message that sets nothing for
others behind a PgBouncer."""
