-- Situations that attack the classifier: what is made on the primary, and what is asked then.
--
-- "--= name" begins a fragment, which set-ups name after a colon; "--# name : fragments" begins a
-- situation: its set-up comes first, with "--: path" and "--: role" where it is asked with another
-- search path than atk, public or by another role than the superuser. Before each set-up the schema
-- atk is made, with atk.lockit(int) and atk.lockb(int), which take the shared advisory lock 4242
-- and return their argument or true; the schema is dropped in the end, and "--: undo" is run. Then come statements, one a line, where a line that starts
-- with spaces goes on with the one before, under how it shows that a replica ran them in silence:
--
-- "--> locks"    the session on the replica has the lock afterwards
-- "--> held"     the same, inside a transaction that is still open
-- "--> differs"  the replica answers, and not what the primary answers
-- "--> stays"    the session has a setting, seed, prepared statement or held cursor afterwards
-- "--> resets"   statistics of the replica are gone
-- "--> refused"  not in silence: the replica raises an error
-- "--> unbuilt"  it would take the lock, but the server says that it was built without libxml
-- "--> free"     benign: it does none of this, and both servers say the same; it should be a read

--= li
create function atk.li(x int) returns int language plpgsql immutable as
  $z$begin perform pg_advisory_lock_shared(4242); return x; end$z$;
--= d
create domain atk.d as int check (atk.lockb(value));
--= safe
create function atk.plus(x int) returns int language plpgsql volatile as $z$begin return x + 1; end$z$;
create domain atk.sd as int check (value > 0);
create table atk.nums(a int, b int);
insert into atk.nums select g, g from generate_series(1, 100) g;
--= ct
create type atk.ct as (x int);
create function atk.lt(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x < ($2).x$z$;
create function atk.le(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x <= ($2).x$z$;
create function atk.eq(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x = ($2).x$z$;
create function atk.ge(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x >= ($2).x$z$;
create function atk.gt(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x > ($2).x$z$;
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.lt);
create operator atk.<= (leftarg=atk.ct, rightarg=atk.ct, function=atk.le);
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator atk.>= (leftarg=atk.ct, rightarg=atk.ct, function=atk.ge);
create operator atk.> (leftarg=atk.ct, rightarg=atk.ct, function=atk.gt);
--= btree
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.cmp(atk.ct,atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values(row(1), 1),(row(2), 2),(row(1), 3);
--= bt
create type atk.bt;
create function atk.bt_in(cstring) returns atk.bt language internal immutable strict as 'int4in';
create function atk.bt_out(atk.bt) returns cstring language internal immutable strict as 'int4out';
create type atk.bt (input = atk.bt_in, output = atk.bt_out, like = int4, category = 'N');
--= hash
create function atk.bt_eq(a atk.bt, b atk.bt) returns bool language internal immutable strict as 'int4eq';
create function atk.bt_hash(a atk.bt) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.= (leftarg=atk.bt, rightarg=atk.bt, function=atk.bt_eq, commutator = operator(atk.=), hashes);
create operator class atk.bth default for type atk.bt using hash as operator 1 =, function 1 atk.bt_hash(atk.bt);
create type atk.wrap as (a atk.bt, n int);
create table atk.t(a atk.bt, n int);
insert into atk.t select g::text::atk.bt, g from generate_series(1, 300) g;
analyze atk.t;
--= op
create type atk.ct as (x int);
create function atk.loweq(a atk.ct, b atk.ct) returns bool language plpgsql volatile as
  $z$begin perform pg_advisory_lock_shared(4242); return a.x operator(pg_catalog.=) b.x; end$z$;
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create operator atk.<> (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create operator atk.<= (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create operator atk.>= (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create operator atk.> (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create table atk.t(a atk.ct, b atk.ct, n int);
insert into atk.t values(row(1), row(1), 1), (row(2), row(1), 2);

--# sequence as a table
create sequence atk.s;
select nextval('atk.s');
create table atk.plain(last_value int, log_cnt int);
insert into atk.plain values (1, 0);
--> differs
select last_value from s
select * from s
table s
select s.last_value from atk.s
select log_cnt from s
select last_value + 1 from s where is_called
select last_value from only s
select x.a from s as x(a, b, c)
with q as (select * from s) select last_value from q
select (select last_value from s)
select 1 where exists (select from s where last_value > 30)
select last_value from plain union select last_value from s
values ((select last_value from s))
select * from pg_sequences where sequencename = 's'
select last_value from pg_catalog.pg_sequences where schemaname = 'atk'
select pg_sequence_last_value('s')
select * from pg_get_sequence_data('s')
copy (select * from s) to stdout
declare c cursor for select last_value from s
select last_value from plain, lateral (select log_cnt from s) q(z) where z <> 0
--> refused
select nextval('s')
select setval('s', 5)
select currval('s')
select lastval()
--> free
select last_value from plain
with s as (select 1 as last_value) select last_value from s
select seqstart from pg_sequence where seqrelid = 'atk.s'::regclass

--# sequence through a view
create sequence atk."Odd Seq";
select nextval('atk."Odd Seq"');
create view atk.v as select last_value as n from atk."Odd Seq";
create view atk.w as select n + 1 as n from atk.v;
create view atk.x as select (select n from atk.w) as n, 1 as one;
create view atk.ok as select seqincrement from pg_sequence where seqrelid = 'atk."Odd Seq"'::regclass;
--> differs
select n from v
select n from w
select n from x
select one, n from x
table x
select last_value from "Odd Seq"
select last_value from U&"Odd\0020Seq"
select last_value from atk."Odd Seq"
select last_value from U&"Odd!0020Seq" uescape '!'
select row_to_json(x) from x
--> free
select * from ok

--# sequence through functions
create sequence atk.s;
select nextval('atk.s');
create function atk.f1() returns bigint language sql stable as 'select last_value from atk.s';
create function atk.f2() returns bigint language sql stable return (select last_value from atk.s);
create function atk.f3() returns bigint language sql stable begin atomic select last_value from atk.s; end;
create function atk.f4() returns bigint language plpgsql stable as $z$begin return (select last_value from s); end$z$;
create function atk.f7() returns setof bigint language plpgsql stable as $z$begin return query table s; end$z$;
create function atk.f7b() returns setof bigint language plpgsql stable as $z$begin return query select x.last_value from s x; end$z$;
create function atk.f8() returns bigint language plpgsql stable as $z$declare r record; begin for r in select * from s loop return r.last_value; end loop; end$z$;
create function atk.f9() returns bigint language plpgsql stable as $z$declare r record; begin select * into r from s; return r.last_value; end$z$;
create function atk.ok() returns bigint language plpgsql stable as $z$declare s bigint := 5; begin return s; end$z$;
create function atk.ok2() returns text language sql stable as $z$select 'select last_value from atk.s'$z$;
--> differs
select f1()
select f2()
select f3()
select f4()
select * from f7b()
select f8()
select f9()
select coalesce(null, f1())
select 1 where f1() > 30
--> refused
select * from f7()
--> free
select ok()
select ok2()

--# sequence in a policy
--: role reader
create sequence atk.s;
select nextval('atk.s');
create table atk.t(a int);
insert into atk.t select generate_series(1, 40);
alter table atk.t enable row level security;
create policy p on atk.t using (a <= (select last_value from atk.s));
create table atk.u(a int);
insert into atk.u values (1);
alter table atk.u enable row level security;
create policy p on atk.u for select using (a > 0);
create policy q on atk.u for update using (a <= (select last_value from atk.s));
grant select on all tables in schema atk to reader;
grant select on all sequences in schema atk to reader;
--> differs
select count(*) from t
select a from t
select (select max(a) from t)
table t
--> free
select * from u

--# sequence behind a rule
create sequence atk.s;
select nextval('atk.s');
create table atk.was(n bigint);
create view atk.v as select 1::bigint as n;
create or replace rule "_RETURN" as on select to atk.v do instead select last_value as n from atk.s;
create view atk.w as select n as n from atk.v;
--> differs
select n from v
select max(n) from w
table only v

--# defaults of arguments, plpgsql
create function atk.f(a int default atk.lockit(1)) returns int language plpgsql stable as $z$begin return 1; end$z$;
create function atk.g(a int, b int default atk.lockit(1), c int default 3) returns int language plpgsql immutable as $z$begin return 1; end$z$;
create function atk.ok(a int default abs(-1)) returns int language plpgsql stable as $z$begin return a; end$z$;
create function atk.outer_() returns int language sql stable as 'select atk.f()';
--> locks
select f()
select atk.f()
select * from f()
select g(1)
select g(1, c => 4)
select g(a => 1)
select g(c := 2, a := 1)
select 1 from g(1) where true
select * from generate_series(1, f())
select outer_()
select 1 limit f()
select 1 offset f()
values (f())
select array[f()]
select case when true then f() end
select count(*) filter (where f() = 1) from (values (1)) v
--> free
select ok()
select ok(5)
select ok(a => 7)

--# defaults of arguments, sql and a built-in effect
create function atk.f(a bool default pg_try_advisory_lock(4242)) returns bool language sql immutable as $z$select $1$z$;
create function atk.g(a bool default pg_try_advisory_lock(4242)) returns bool language sql stable return a;
create function atk.h(x int default length(set_config('atk.mark', 'x', false))) returns int language sql stable as 'select x';
create function atk.ok(a text default current_setting('server_version_num')) returns text language sql stable as 'select a';
--> locks
select f()
select g()
select * from f()
select * from rows from (f(), g())
select bool_and(f()) from (values (1)) v
select f() union all select false
select 1 where f()
explain (analyze, costs off, timing off, summary off, buffers off) select f()
--> stays
select h()
select * from h()
--> free
select ok()
select f(true)
select h(5)

--# defaults with variadic and overloads
create function atk.f(a int default atk.lockit(1), variadic b int[] default array[atk.lockit(2)]) returns int language plpgsql stable as $z$begin return 1; end$z$;
create function atk.g(a text) returns int language sql stable as 'select 1';
create function atk.g(a int, b int default atk.lockit(1)) returns int language plpgsql stable as $z$begin return 1; end$z$;
--> locks
select f()
select f(1)
select g(1)
select g(b => default_, a => 1) from (select lockit(1) as default_) q
select g(a => 1)
--> free
select f(1, 2)
select f(1, variadic array[2, 3])
select g(1, 2)
select g('a')

--# default of a table-returning function
create function atk.f(n int default atk.lockit(3)) returns table(a int) language sql stable as $z$select g from generate_series(1, 3) g$z$;
create function atk.p(inout a int default atk.lockit(3), out b int) language plpgsql stable as $z$begin b := 1; end$z$;
--> locks
select * from f()
select f.a from f() with ordinality as f(a, o)
select * from p()
select (p()).b
select x.* from (values (1)) v(i), lateral f() x
select x.* from (values (1)) v(i) left join lateral f() x on true

--# domain with a check
create domain atk.d as int check (atk.lockb(value));
create domain atk.sd as int check (value > 0);
create domain atk.dn as text check (value <> '') not null;
create function atk.r() returns atk.d language sql stable as 'select 1';
create function atk.r2() returns atk.d language plpgsql stable as $z$begin return 1; end$z$;
create function atk.r3(out x atk.d) language plpgsql stable as $z$begin x := 1; end$z$;
create function atk.r4() returns setof atk.d language sql stable as 'values (1), (2)';
--> locks
select 1::d
select '1'::d
select cast(1 as d)
select cast('1' as atk.d)
select d '1'
select d(1)
select d('1')
select atk.d(1)
select null::d
select '1'::"d"
select '1'::U&"\0064"
select '1'::D
select r()
select r2()
select r3()
select * from r4()
select * from r() as x
select 1 where 1::d = 1
select array[1::d]
select * from (values (1::d), (2)) v
select case 1 when 1::d then 1 end
select coalesce(1::d, 2)
select 1 in (1::d)
select max(x::d) from generate_series(1, 2) x
select sum(x) filter (where x::d > 0) from generate_series(1, 2) x
select rank() over (order by x::d) from generate_series(1, 2) x
select 1 limit 1::d
--> free
select 1::sd
select '1'::sd
select sd(1)
select cast(5 as atk.sd)
select 'x'::dn

--# domain in array, composite, over domain : d
create domain atk.dd as atk.d;
create domain atk.da as atk.d[];
create domain atk.dc_ as int[];
create type atk.c as (a atk.d);
create type atk.cc as (b atk.c, e int);
create type atk.cca as (z atk.c[]);
create domain atk.dcc as atk.c;
create type atk.sc as (a int, b text);
create domain atk.sdom as atk.sc check ((value).a > 0);
--> locks
select 1::dd
select '{1}'::da
select '{1}'::d[]
select '{{1,2},{3,4}}'::d[]
select '{1}'::_d
select array[1,2]::d[]
select array[1]::da
select row(1)::c
select '(1)'::c
select '{(1)}'::c[]
select row(row(1), 2)::cc
select '("(1)",2)'::cc
select array[row(1)]::c[]
select '("{(1)}")'::cca
select row(1)::dcc
select '(1)'::dcc
select (row(1)::c).a
select c '(1)'
select (array[1,2]::d[])[1]
select '[2:3]={1,2}'::d[]
select x::d[] from (values (array[1])) v(x)
select string_to_array('1,2', ',')::d[]
--> free
select row(1, 'a')::sc
select row(1, 'a')::sdom
select '{1,2}'::dc_
select '{"(1,a)"}'::sc[]

--# domain in json and text functions : d
create type atk.c as (a atk.d);
create table atk.t(a atk.d, b int);
insert into atk.t values (1, 2);
create type atk.ok as (a int);
--> locks
select * from json_populate_record(null::c, '{"a":1}')
select * from jsonb_populate_record(null::t, '{"a":1}')
select * from jsonb_populate_record(row(1,2)::t, '{"a":3}')
select jsonb_populate_record(t, '{"a":2}') from t
select * from jsonb_populate_recordset(null::c, '[{"a":1}]')
select * from json_populate_recordset(null::t, '[{"a":1}]')
select * from json_to_record('{"a":1}') as x(a d)
select * from jsonb_to_record('{"a":1}') as x(a atk.d)
select * from jsonb_to_recordset('[{"a":1}]') as x(a d)
select * from json_to_recordset('[{"a":[1]}]') as x(a d[])
select * from json_to_record('{"a":{"a":1}}') as x(a c)
select * from rows from (json_to_record('{"a":1}') as (a d), generate_series(1, 2)) as q
select * from rows from (jsonb_to_recordset('[{"a":["(1)"]}]') as (a c[])) q
select * from json_table('[1]', '$[*]' columns (a d path '$'))
select * from json_table('[{"a":1}]', '$[*]' columns (nested path '$' columns (a atk.d path '$.a')))
select json_value('1', '$' returning d)
select json_query('1', '$' returning atk.d)
select json_query('[1]', '$' returning d[])
select pg_input_is_valid('1', 'atk.d')
select pg_input_is_valid('{1}', 'd[]')
select * from pg_input_error_info('1', 'd')
select pg_input_is_valid(x, y) from (values ('1', 'atk.d')) v(x, y)
select pg_input_is_valid('(1)', 'c')
select pg_input_is_valid('1', 'at' || 'k.d')
select jsonb_populate_record_valid(null::c, '{"a":1}')
--> free
select * from json_populate_record(null::ok, '{"a":1}')
select * from json_to_record('{"a":1}') as x(a int)
select pg_input_is_valid('1', 'int')
select * from json_table('[1]', '$[*]' columns (a int path '$'))
select json_value('1', '$' returning int)

--# domain in ranges and multiranges
create domain atk.d as int check (atk.lockb(value));
create type atk.dr as range (subtype = atk.d, multirange_type_name = atk.dmr);
create domain atk.rd as int4range check (atk.lockb(lower(value)));
create domain atk.mrd as int4multirange check (atk.lockb(1));
create type atk.okr as range (subtype = int8);
--> locks
select '[1,2]'::dr
select dr(1, 2)
select dr(1, 2, '[]')
select '{[1,2]}'::dmr
select dmr(dr(1, 2))
select '[1,2]'::rd
select int4range(1, 2)::rd
select int4multirange(int4range(1, 2))::mrd
select '{[1,2)}'::mrd
select lower('[1,2]'::dr)
select * from (values (null::dr), ('[1,2]')) v(a)
select 1 where dr(1, 5) @> 3::d
select rd '[1,2]'
select '{"[1,2]"}'::dr[]
--> free
select '[1,2]'::okr
select okr(1, 2)
select '[1,2]'::int4range

--# domain in row types of tables : d
create table atk.t(a atk.d, b int);
insert into atk.t values (null, 1);
create table atk.part(a atk.d, b int) partition by list (b);
create view atk.v as select * from atk.t;
create materialized view atk.mv as select 1 as z, a from atk.t;
create table atk.child(c int) inherits (atk.t);
create table atk.typed(k int, tt atk.t);
create table atk.ok(a int, b int);
insert into atk.ok values (1, 2);
--> locks
select row(1,2)::t
select '(1,2)'::t
select '(1,2)'::atk.t
select '(1,2)'::part
select '(1,2)'::v
select '(1,2)'::mv
select '(1,2,3)'::child
select '(1,"(1,2)")'::typed
select '{"(1,2)"}'::t[]
select '{"(1,2)"}'::_t
select row(1,2)::v
select row(1,row(1,2))::typed
select t '(1,2)'
select pg_input_is_valid('(1,2)', 'atk.t')
--> free
select row(1,2)::ok
select '(1,2)'::ok
select ok from ok
select a from t

--# domain in plpgsql declarations : d
create table atk.t(a atk.d, b int);
create type atk.c as (a atk.d);
create type atk.nest as (c atk.c);
create function atk.f1() returns int language plpgsql stable as $z$declare v atk.t%rowtype; begin v.a := 1; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare v atk.t.a%type; begin v := 1; return v; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare v d; begin v := 1; return v; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare v d := 1; begin return v; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare v d default 1; begin return v; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare v atk.c; begin v.a := 1; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare v atk.nest; begin v.c.a := 1; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare v d[]; begin v[1] := 1; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare v t; begin select 1, 2 into v; return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare v t.a%type; w v%type; begin w := 2; return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare v atk.d[]; x int; begin v := array[1,2]; return 1; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$declare v t.a%type[]; begin v := array[1]; return 1; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$declare c cursor (k d) for select k; begin open c(1); return 1; end$z$;
create function atk.f14() returns int language plpgsql stable as $z$<<b>> declare "v w" constant "d" := 1; begin return b."v w"; end$z$;
create function atk.f15() returns int language plpgsql stable as $z$declare v d; begin for i in 1..1 loop select i into v; end loop; return 1; end$z$;
create function atk.f16() returns int language plpgsql stable as $z$declare v d; begin get diagnostics v = row_count; return 1; end$z$;
create function atk.f17(x int) returns int language plpgsql stable as $z$declare v/**/d/* := */:=/* */x; begin return 1; end$z$;
create function atk.f18() returns int language plpgsql stable as $z$declare r record; v d; begin for v in select 1 loop null; end loop; return 1; end$z$;
create function atk.f19() returns int language plpgsql stable as $z$declare v d; begin foreach v in array array[1] loop null; end loop; return 1; end$z$;
create function atk.f20() returns int language plpgsql stable as $z$begin declare begin declare v atk . d = 1; begin return v; end; end; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare d int := 1; begin return d; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare v t.b%type; begin v := 1; return v; end$z$;
create function atk.ok3() returns text language plpgsql stable as $z$begin return 'declare v d := 1'; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
select f16()
select f17(1)
select f18()
select f19()
select f20()
--> free
select ok1()
select ok2()
select ok3()

--# domain in signatures : d
create type atk.c as (a atk.d);
create table atk.t(a atk.d, b int);
create function atk.f1(x int) returns table(a atk.d) language sql stable as $z$select $1$z$;
create function atk.f2(x atk.d) returns int language plpgsql stable as $z$begin return 1; end$z$;
create function atk.f3(x atk.d) returns int language sql immutable as $z$select x::int$z$;
create function atk.f4(x int, out a atk.d, out b atk.d) language plpgsql stable as $z$begin a := x; end$z$;
create function atk.f5() returns setof atk.c language sql stable as $z$select 1$z$;
create function atk.f7() returns atk.t language sql stable as $z$select 1, 2$z$;
create function atk.f8() returns atk.d[] language sql stable as $z$select array[1]$z$;
create function atk.f9(variadic x atk.d[]) returns int language sql immutable as $z$select x[1]$z$;
create function atk.f10(x atk.d[]) returns int language plpgsql immutable as $z$begin return 1; end$z$;
create function atk.f11(x atk.c) returns int language sql stable as $z$select (x).a$z$;
create function atk.f12() returns table(a atk.d) language plpgsql stable as $z$begin a := 1; return next; end$z$;
create function atk.f13(x anyelement) returns anyelement language plpgsql stable as $z$declare v x%type; begin v := 1; return v; end$z$;
create function atk.f14() returns record language sql stable as $z$select 1$z$;
create function atk.f15(x int) returns atk.d language sql immutable return x;
create function atk.f16(x int) returns atk.d language sql stable begin atomic select x; end;
create function atk.ok(x int) returns int language plpgsql stable as $z$begin return x; end$z$;
--> locks
select * from f1(1)
select f1(1)
select f2(1)
select f2(x => 1)
select f2('1')
select f3(1)
select f3(x) from (values (1)) v(x)
select * from f4(1)
select (f4(1)).b
select * from f5()
select f7()
select f8()
select f9(1, 2)
select f9(variadic array[1,2])
select f10('{1}')
select f10(array[1,2])
select f11('(1)')
select f11(row(1))
select * from f12()
select * from f14() as (a d)
select f15(1)
select f16(1)
--> free
select ok(1)
select f13(1)

--# explicit casts
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bigint language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (atk.ct as bigint) with function atk.c2b(atk.ct);
create domain atk.di as bigint;
create domain atk.ddi as atk.di;
create domain atk.ctd as atk.ct;
create table atk.t(a atk.ct, b atk.ctd, c atk.ct[], n int);
insert into atk.t values (row(1), row(2), array[row(3)::atk.ct], 4);
create view atk.v as select a::bigint as a, n from atk.t;
create function atk.f1() returns bigint language plpgsql stable as $z$declare c atk.ct; begin c := row(1); return c::bigint; end$z$;
create function atk.f2() returns bigint language sql stable as $z$select a::bigint from atk.t$z$;
create function atk.f3() returns bigint language sql stable return (select cast(a as int8) from atk.t);
--> locks
select n from v
select a::bigint from t
select a::int8 from t
select cast(a as bigint) from t
select a::di from t
select a::ddi from t
select b::bigint from t
select b::di from t
select (c[1])::bigint from t
select c::bigint[] from t
select c::di[] from t
select row(1)::ct::bigint
select '(1)'::ct::bigint
select (t.a)::pg_catalog.int8 from t
select a from v
select max(a) from v
select f1()
select f2()
select f3()
select n from t where a::bigint = 1
select n from t order by a::bigint
select count(*) from t group by a::bigint
select n::text || (a::bigint)::text from t
select case when n = 4 then a::bigint end from t
select 1 limit (select a::bigint from t)
--> free
select n::bigint from t
select '5'::bigint
select a from t
select n::di from t
select (a).x::bigint from t

--# implicit casts
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bigint language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (atk.ct as bigint) with function atk.c2b(atk.ct) as implicit;
create table atk.t(a atk.ct, n bigint);
insert into atk.t values (row(1), 4);
create function atk.big(bigint) returns int language sql immutable as 'select $1::int';
create function atk.two(bigint, variadic bigint[]) returns bigint language sql immutable as 'select $1 + $2[1]';
create function atk.dflt(a bigint default row(1)::atk.ct) returns bigint language sql immutable as 'select a';
create view atk.v as select a + n as s, n from atk.t;
create function atk.f() returns bigint language sql stable as $z$select a from atk.t$z$;
create function atk.g() returns bigint language plpgsql stable as $z$begin return (select a from atk.t); end$z$;
create function atk.h() returns int language plpgsql stable as $z$declare v bigint; begin select a into v from atk.t; return 1; end$z$;
create function atk.i() returns setof bigint language plpgsql stable as $z$begin return next (select a from atk.t); end$z$;
create function atk.j() returns int language plpgsql stable as $z$declare v bigint := row(1)::ct; begin return 1; end$z$;
create function atk.k() returns int language plpgsql stable as $z$declare v bigint[]; begin v[1] := row(1)::ct; return 1; end$z$;
create function atk.l() returns int language plpgsql stable as $z$declare v bigint; begin if row(1)::ct + 1 = 2 then return 1; end if; return 2; end$z$;
--> locks
select n from v
select a + n from t
select abs(a) from t
select big(a) from t
select two(n, n, a) from t
select dflt()
select n from t where a = n
select n from t where n = a
select n from t where n in (select a from t)
select n from t where n between a and 5
select x from generate_series(1::bigint, (select a from t)) x
select s from v
select f()
select g()
select h()
select i()
select j()
select k()
select l()
select 1 offset (select a from t)
select sum(a) from t
select nullif(n, a) from t
select n is distinct from a from t
select count(*) over (order by n rows between (select a from t) preceding and current row) from t
--> free
select n from t
select n + 1 from t where n > 3
select abs(n) from t
select array[n, 1] from t
select coalesce(n, 0) from t

--# assignment casts
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bigint language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (atk.ct as bigint) with function atk.c2b(atk.ct) as assignment;
create table atk.t(a atk.ct, n bigint);
insert into atk.t values (row(1), 4);
create type atk.rt as (p bigint, q int);
create function atk.f1() returns bigint language sql stable as $z$select a from atk.t$z$;
create function atk.f2() returns bigint language plpgsql stable as $z$begin return (select a from atk.t); end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare v bigint; begin select a into v from atk.t; return 1; end$z$;
create function atk.f4() returns table (p bigint, q int) language sql stable as $z$select a, 1 from atk.t$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare v atk.rt; begin v.p := (select a from t); return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare v atk.rt; begin select a, 1 into v from t; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare v bigint; begin for v in select a from t loop null; end loop; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare v bigint; c cursor for select a from t; begin open c; fetch c into v; return 1; end$z$;
create function atk.f10(out o bigint) language plpgsql stable as $z$begin o := row(1)::ct; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare v bigint[]; begin v := array[row(1)::ct]; return 1; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$declare v bigint default '(1)'::ct; begin return 1; end$z$;
create function atk.f13() returns bigint language sql stable return '(1)'::atk.ct;
create function atk.f14() returns bigint language sql stable begin atomic; select a from atk.t; end;
create function atk.f15() returns int language plpgsql stable as $z$declare v bigint; begin foreach v in array array['(1)'::ct] loop null; end loop; return 1; end$z$;
create function atk.f16() returns setof atk.rt language sql stable as $z$select a, 1 from atk.t$z$;
create function atk.okf() returns bigint language sql stable as $z$select n from atk.t$z$;
create function atk.okg() returns text language plpgsql stable as $z$declare v text; begin select n into v from t; return v; end$z$;
--> locks
select f1()
select f2()
select f3()
select * from f4()
select f5()
select f6()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
select * from f16()
select (f16()).q
--> free
select okf()
select okg()
select n from t

--# casts to text by name and by value
create type atk.ct as (x int);
create function atk.c2t(atk.ct) returns text language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 'x'; end$z$;
create cast (atk.ct as text) with function atk.c2t(atk.ct) as implicit;
create table atk.t(a atk.ct, n text);
insert into atk.t values (row(1), 'q');
--> locks
select a::text from t
select upper(a) from t
select a like 'x' from t
select n like a from t
select a ~ 'x' from t
select n in (a) from t
select length(a) from t
select to_tsvector('simple', a) from t
select position('x' in a) from t
select substring(a from 1 for 1) from t
select string_agg(a, ',') from t
select n from t where a = 'x'::text
select trim(a) from t
select 1 from t where a similar to 'x'
select a::varchar(1)::text from (select a::text as a from t) q
--> free
select n || 'x' from t
select upper(n) from t
select n like 'q' from t
select format('%s', n) from t

--# enum and composite to json casts
create type atk.e as enum ('a', 'b');
create type atk.e2 as enum ('a', 'b');
create type atk.ct as (x int);
create table atk.t(a atk.e, c atk.ct, n int, ok atk.e2);
insert into atk.t values ('a', row(1), 1, 'a');
create function atk.e2j(atk.e) returns json language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return '1'; end$z$;
create cast (atk.e as json) with function atk.e2j(atk.e);
create domain atk.ed as atk.e;
create view atk.v as select to_jsonb(t) as j from atk.t;
create function atk.f() returns json language sql stable as $z$select row_to_json(t) from atk.t$z$;
create function atk.g() returns json language plpgsql stable as $z$declare v e := 'a'; begin return to_json(v); end$z$;
--> locks
select to_json(a) from t
select to_jsonb(a) from t
select json_agg(a) from t
select jsonb_agg(a) from t
select json_build_object('k', a) from t
select jsonb_build_object('k', a) from t
select json_build_array(a) from t
select jsonb_build_array(1, a) from t
select row_to_json(t) from t
select row_to_json(q) from (select a from t) q
select to_jsonb(t) from t
select json_agg(t) from t
select jsonb_agg(t.*) from t
select jsonb_object_agg(n, a) from t
select json_object_agg(n, a) from t
select json_object('k' value a) from t
select json_array(a) from t
select json_arrayagg(a) from t
select json_objectagg(n: a) from t
select array_to_json(array[a]) from t
select array_to_json(array_agg(a)) from t
select to_json(array[t]) from t
select json_scalar(1), json_build_object('z', array_agg(t)) from t
select a::json from t
select to_json(row(1, a)) from t
select to_json('a'::e)
select to_json(x) from unnest(enum_range(null::e)) x
select j from v
select f()
select g()
select jsonb_agg_strict(a) from t
select to_json(a::ed::e) from t
select a::ed::json from t
--> free
select n from t
select json_agg(n) from t
select a from t
select to_json(ok) from t
select jsonb_build_object('k', n) from t

--# casts through an inout function and a shadowed type
create type atk.ct as (x int);
create function atk.t2c(text) returns atk.ct language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return row(1); end$z$;
create cast (text as atk.ct) with function atk.t2c(text) as implicit;
create table atk.t(a text, n int);
insert into atk.t values ('(1)', 1);
create function atk.f(atk.ct) returns int language sql immutable as 'select ($1).x';
--> locks
select a::ct from t
select f(a) from t
select f(a::text) from t
select ('(1)'::text)::ct
select (upper(a)::ct).x from t
select t.a::atk.ct from t
select f(n || '') from t
select t.f from (select '(1)'::text::ct as f) t
select array[a]::ct[] from t
--> free
select f('(1)')
select '(1)'::ct
select n from t

--# element and row casts
create type atk.ct as (x int);
create function atk.i2c(int) returns atk.ct language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return row(1); end$z$;
create cast (int as atk.ct) with function atk.i2c(int) as assignment;
create type atk.outer_ as (c atk.ct, n int);
create table atk.t(c atk.ct, n int);
create function atk.f() returns atk.outer_ language sql stable as 'select 1, 2';
create function atk.g() returns int language plpgsql stable as $z$declare o outer_; begin o.c := 1; return 1; end$z$;
create function atk.h() returns setof atk.t language plpgsql stable as $z$declare o t; begin o.c = 1; return next o; end$z$;
--> locks
select 1::ct
select array[1,2]::ct[]
select '{1,2}'::int[]::ct[]
select row(1, 2)::outer_
select row(1, 2)::t
select array[row(1, 2)::outer_]
select g()
select * from h()
select f()
select x::ct from generate_series(1, 2) x
--> free
select '(1)'::ct
select '{(1)}'::ct[]
select '("(1)",2)'::outer_
select n from t

--# cast that a domain hides
create type atk.ct as (x int);
create domain atk.d1 as atk.ct;
create function atk.c2n(atk.ct) returns numeric language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (atk.ct as numeric) with function atk.c2n(atk.ct) as implicit;
create table atk.t(a atk.d1, n numeric);
insert into atk.t values (row(1), 2);
--> locks
select a + n from t
select a::numeric from t
select a::numeric(10, 2) from t
select sum(a) from t
select round(a) from t
select round(a, 1) from t
select n from t where n > a
--> free
select n from t where n > 1
select round(n) from t

--# operators by symbol : op
create function atk.lowneg(a atk.ct) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.@# (rightarg=atk.ct, function=atk.lowneg);
create function atk.lowplus(a atk.ct, b int) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.+ (leftarg=atk.ct, rightarg=int, function=atk.lowplus);
create function atk.lowint(a int, b int) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.<-> (leftarg=int, rightarg=int, function=atk.lowint);
create function atk.lowlike(a atk.ct, b text) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.~~ (leftarg=atk.ct, rightarg=text, function=atk.lowlike);
create operator atk.!~~* (leftarg=atk.ct, rightarg=text, function=atk.lowlike);
create operator atk.|| (leftarg=atk.ct, rightarg=text, function=atk.lowlike);
create function atk.okadd(a int, b int) returns int language plpgsql volatile as $z$begin return a + b; end$z$;
create operator atk.#+# (leftarg=int, rightarg=int, function=atk.okadd);
create view atk.v as select n from atk.t where a = b;
create function atk.f() returns bool language sql stable as 'select a = b from atk.t';
create function atk.g() returns bool language plpgsql stable as $z$begin return (select bool_or(a=b) from t); end$z$;
create function atk.h() returns bool language plpgsql stable as $z$declare x ct := row(1); begin return x=x; end$z$;
create function atk.i() returns bool language sql stable return row(1)::atk.ct = row(1)::atk.ct;
--> locks
select @# a from t
select a + 1 from t
select 1 <-> 2
select 1 operator(atk.<->) 2
select a ~~ 'x' from t
select a like 'x' from t
select a not ilike 'x' from t
select a || 'x' from t
select a = b from t
select a operator(atk.=) b from t
select a<>b from t
select a != b from t
select a <= b from t
select n from t where a=b
select n from t where not a = b
select n from t order by 1 <-> 2
select n from v
select f()
select g()
select h()
select i()
select t.a = any (select b from t) from t
--> free
select 1 #+# 2
select n = 1 from t
select n from t where n < 5 order by n
select n + 1 from t

--# operators implied by a form : op
create table atk.u(a atk.ct, m int);
insert into atk.u values (row(1), 7);
create function atk.arr(atk.ct) returns atk.ct[] language sql immutable as 'select array[$1]';
--> locks
select a in (b) from t
select a in (b, row(2)::ct) from t
select a not in (b) from t
select n from t where a in (select b from t)
select n from t where a not in (select b from t)
select a between b and b from t
select a not between symmetric b and b from t
select case a when b then 1 end from t
select nullif(a, b) from t
select a is distinct from b from t
select a is not distinct from b from t
select a = any (array[b]) from t
select a <> all (array[b]) from t
select a < some (arr(b)) from t
select (a, n) is distinct from (b, n) from t
select n from t join u using (a)
select n from t natural join u
select n from t left join u using (a)
select n from t join u on t.a = u.a
select n from t where exists (select from u where u.a = t.a)
select n from t, u where u.a = t.a
select n from t group by n having bool_or(a = b)
select a = (select b from t limit 1) from t
select 1 from t where (select a from t limit 1) in (select b from t)
--> free
select n in (1, 2) from t
select n between 1 and 2 from t
select nullif(n, 1) from t
select case n when 1 then 2 end from t
select n from t join u on t.n = u.m
select n is distinct from 1 from t
select m from u where m = any (array[1, 7])

--# operators over domains and supertypes : op
create domain atk.dct as atk.ct;
create table atk.dt(a atk.dct, b atk.dct);
insert into atk.dt values (row(1), row(1));
create function atk.lowany(a anyelement, b anyelement) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.=== (leftarg=anyelement, rightarg=anyelement, function=atk.lowany);
--> locks
select a = b from dt
select a in (b) from dt
select 1 === 1
select 'a'::text === 'b'
select now() === now()
select row(1) === row(2)
--> free
select 1 = 1
select 1 in (1, 2)

--# shadowed operators of integers
--: path atk, pg_catalog
create function atk.loweq(a int, b int) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.= (leftarg=int, rightarg=int, function=atk.loweq);
create operator atk.< (leftarg=int, rightarg=int, function=atk.loweq);
create operator atk.>= (leftarg=int, rightarg=int, function=atk.loweq);
create operator atk.<= (leftarg=int, rightarg=int, function=atk.loweq);
create table atk.t(a int, b text);
insert into atk.t values (1, 'x'), (2, 'y');
--> locks
select 1 = 1
select a from t where a = 1
select a from t where a in (1, 3)
select a from t where a between 0 and 3
select a from t where a = any (array[1])
select case a when 1 then 2 end from t
select nullif(a, 1) from t
select a is distinct from 1 from t
select 1 from t x join t y using (a)
select 1 from t x natural join t y
--> free
select b from t where b = 'x'
select 1 operator(pg_catalog.=) 1
select a from t where a > 1
select 2.5 = 2.5

--# functions that shadow built-ins
--: path atk, pg_catalog
create function atk.upper(text) returns text language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return $1; end$z$;
create function atk.abs(int) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return $1; end$z$;
create function atk.now() returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.length(int) returns int language plpgsql stable as $z$begin return 1; end$z$;
--> locks
select upper('x'::text)
select abs(-1)
select now()
select upper(pg_catalog.lower('X'))
select * from abs(1)
--> free
select pg_catalog.upper('x'::text)
select abs(-1.5)
select lower('x'::text)
select length('abc'::text)
select length(1)

--# exact overloads that need no place before pg_catalog
create function atk.upper(varchar) returns text language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return $1; end$z$;
create function atk.abs(text) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create table atk.t(a varchar, n int);
insert into atk.t values ('x', 1);
create function atk.greatest_of(int, int) returns int language sql immutable as 'select greatest($1, $2)';
--> locks
select upper(a) from t
select upper('x'::varchar)
select abs('x'::text)
select t.upper from (select upper(a) from t) t
--> free
select upper('x'::text)
select abs(n) from t
select greatest_of(1, 2)

--# operator class of a btree : ct btree
create table atk.u(a atk.ct);
insert into atk.u values(row(1)),(row(2));
create view atk.v as select distinct a from atk.t;
create view atk.w as select * from atk.t order by a;
create function atk.f() returns setof atk.t language sql stable as 'select * from atk.t order by a';
create function atk.h() returns setof int language plpgsql stable as $z$begin return query select n from t order by a; end$z$;
--> locks
select * from t order by a
select n from t order by a desc nulls last
select n from t order by a using <
select n from t order by a using operator(atk.>)
select n from t order by a, n limit 1
select distinct a from t
select distinct on (a) n from t
select distinct * from t
select count(*) from t group by a
select count(*) from t group by a, n
select count(*) from t group by grouping sets ((a), (n))
select count(*) from t group by rollup (a)
select count(*) from t group by cube (a, n)
select a from t union select a from u
select a from t intersect select a from u
select a from t except select a from u
select a from t except all select a from u
select count(distinct a) from t
select array_agg(a order by a) from t
select array_agg(distinct a) from t
select row_number() over (order by a) from t
select row_number() over (partition by a) from t
select rank() over (partition by n % 2 order by a desc) from t
select array[a] < array[a, a] from t
select t < t from t
select n from t order by t
select n from t order by array[a]
select distinct t from t
select count(*) from t group by t
select max(array[a]) from t
select a from v
select n from w
select * from f()
select * from h()
select mode() within group (order by a) from t
select percentile_disc(0.5) within group (order by a) from t
select rank(row(1)::ct) within group (order by a) from t
select greatest(a, a) from t
select least(a, a, a) from t
select array_sort(array_agg(a)) from t
select width_bucket(a, array[a]) from t
select a from (select a from t limit 5) q group by a
--> free
select n from t order by n
select a from t
select distinct n from t
select count(*) from t
select count(a) from t
select n from t group by n
select array_agg(a) from t
select count(distinct n) from t
select row_number() over (partition by n order by n) from t
select a is null from t
select n from t where n in (select n from t)

--# operator class of a hash : bt hash
create table atk.u(a atk.bt);
insert into atk.u select g::text::atk.bt from generate_series(1, 300) g;
create table atk.r(c atk.wrap);
insert into atk.r select row(a, n)::atk.wrap from atk.t;
--> locks
select count(*) from t group by a
select distinct a from t
select a from t union select a from u
select a from t intersect select a from u
select a from t except select a from u
select t.n from t join u using (a)
select n from t where a in (select a from u)
select n from t where a = any ('{1,2,3,4,5,6,7,8,9}'::bt[])
select hash_array(array[a]) from t
select hash_record(t) from t
with recursive r as (select a, 1 as k from t union select a, 2 from t) select count(*) from r
select n from t where exists (select from u where u.a = t.a)
select t.n from t full join u using (a)
select n, (select count(*) from u where u.a = t.a) from t where a not in (select a from u)
select count(*) from t group by array[a]
select count(*) from r group by c
select distinct t from t
select a from t group by grouping sets ((a), (n))
--> free
select n from t
select distinct n from t
select a from t
select n from t join (select 1 as n) u using (n)

--# operator class with safe functions and other operators : op
create function atk.cmp(a atk.ct, b atk.ct) returns int language sql immutable as 'select a.x - b.x';
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.cmp(atk.ct,atk.ct);
create table atk.u(a atk.ct);
insert into atk.u values(row(1)),(row(1)),(row(2));
create function atk.g() returns bool language plpgsql stable as $z$declare x ct[] := array[row(1), row(1)]; begin return x = x; end$z$;
--> locks
select count(*) from t group by a
select a from t union select a from u
select distinct a from t, (values (1), (2)) w
select row_number() over (partition by a), rank() over (order by a) from u
select count(distinct a) from u
select a = b from t
select (a, n) = (b, n) from t
select (n, a) in ((1, b)) from t
select n from t where (n, a) in (select n, b from t)
select n from t where (a, n) = (select b, n from t limit 1)
select array[a] = array[a] from t
select array_agg(a) = array_agg(a) from t
select t = t from t
select t in (select x from t x) from t
select array_position(array[a], a) from t
select array_remove(array[a], a) from t
select array[a] @> array[a] from t
select array_positions(array[a, a], a) from t
select n from t where array[a] && array[a]
select row(a) <> row(b) from t
select row(a, 1) is distinct from row(b, 1) from t
select g()
select rank() over (order by a) from u
select distinct a from u
--> free
select n from t

--# operator class of a range
create type atk.ct as (x int);
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create function atk.lt(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x < ($2).x$z$;
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.lt);
create operator class atk.cto for type atk.ct using btree as operator 1 atk.<, function 1 atk.cmp(atk.ct,atk.ct);
create type atk.r as range (subtype = atk.ct, subtype_opclass = atk.cto);
create table atk.t(a atk.r, n int);
insert into atk.t values ('["(1)","(3)")', 1), ('["(2)","(4)")', 2);
create domain atk.rd as atk.r;
--> locks
select '["(1)","(3)")'::r
select r(row(1)::ct, row(2)::ct)
select a = a from t
select a && a from t
select a @> row(2)::ct from t
select row(2)::ct <@ a from t
select a << a from t
select a + a from t
select a * a from t
select n from t order by a
select range_merge(a, a) from t
select range_agg(a) from t
select range_intersect_agg(a) from t
select multirange(a) + multirange(a) from t
select '["(1)","(3)")'::rd
select '{["(1)","(3)")}'::r_multirange
select jsonb_populate_record(null::t, '{"a": "[\"(1)\",\"(2)\")"}')
select array[a] = array[a] from t
select t = t from t
select unnest(multirange(a) * multirange(a)) from t
--> free
select n from t
select lower(a) from t
select isempty(a) from t
select int4range(1, 2) && int4range(2, 3)

--# casts that types of one category agree on : bt
create type atk.bt2;
create function atk.b2_in(cstring) returns atk.bt2 language internal immutable strict as 'int4in';
create function atk.b2_out(atk.bt2) returns cstring language internal immutable strict as 'int4out';
create type atk.bt2 (input = atk.b2_in, output = atk.b2_out, like = int4, category = 'N', preferred);
create function atk.b2b(atk.bt) returns atk.bt2 language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return '1'; end$z$;
create cast (atk.bt as atk.bt2) with function atk.b2b(atk.bt) as implicit;
create table atk.t(a atk.bt, b atk.bt2, n int);
insert into atk.t values ('1', '2', 3);
create function atk.f(atk.bt2) returns int language sql immutable as 'select 1';
create function atk.g(atk.bt2[]) returns int language sql immutable as 'select $1[1]::text::int';
create function atk.h(variadic atk.bt2[]) returns int language sql immutable as 'select $1[1]::text::int';
create function atk.i(a anycompatible, b anycompatible) returns anycompatible language sql immutable as 'select a';
--> locks
select a from t union all select b from t
select b from t union all select a from t
values ('1'::bt), ('2'::bt2)
select array[a, b] from t
select case when n > 5 then a else b end from (select a, b, 9 as n from t) t
select coalesce(a, b) from t
select b from t where n in (select 3 from t union all select n from t) union all select a from t
select h(a) from t
select g(array[a]::bt2[]) from t
select i(a, b) from t
select a::bt2 from t
select array_append(array[b], a) from t
select array_prepend(a, array[b]) from t
select array[b] || a from t
select array_replace(array[b], b, a) is null from t where false or b is null union all select a is null from (select a::bt2 from t) x(a)
select lag(b, 1, a) over () from t
select * from (values (1, '1'::bt), (2, '2'::bt2)) v(k, x)
select * from (select a from t offset 0) x(y) union all select b from t
with recursive r as (select b, 1 as k from t union all select a::bt2, 2 from t) select * from r
--> free
select a from t union all select a from t
values ('1'::bt2), ('2'::bt2)
select f(b) from t
select coalesce(b, '5') from t

--# casts between composites of one category
create type atk.c1 as (x int);
create type atk.c2 as (x int);
create function atk.c12(atk.c1) returns atk.c2 language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return row(1); end$z$;
create cast (atk.c1 as atk.c2) with function atk.c12(atk.c1) as implicit;
create table atk.t(a atk.c1, b atk.c2);
insert into atk.t values (row(1), row(2));
--> locks
select a from t union all select b from t
select a from t union select b from t
select b from t except select a from t
select a from t intersect select b from t
values (row(1)::c1), (row(1)::c2)
select array[a, b] from t
select coalesce(a, b) from t
select greatest(a, b) from t
select case when (b).x = 1 then b else a end from t
select a::c2 from t
select row(1)::c1::c2
--> free
select a from t union all select a from t
select b from t union select b from t
select row(1)::c2
select greatest(b, b) from t

--# check constraints folded : li
create table atk.p(a int);
create table atk.k(check (a > atk.li(0))) inherits (atk.p);
create table atk.pp(a int, b text) partition by list (b);
create table atk.pk partition of atk.pp for values in ('x');
alter table atk.pk add check (a > atk.li(0));
create table atk.solo(a int check (a > atk.li(0)), b int);
insert into atk.solo values (1, 2);
create view atk.v as select * from atk.p where a = 3;
create function atk.f() returns setof int language sql stable as 'select a from atk.p where a = 5';
create function atk.g() returns bigint language plpgsql stable as $z$begin return (select count(*) from p where a < 5); end$z$;
create table atk.okp(a int);
create table atk.okk(check (a > 0)) inherits (atk.okp);
--> locks
select * from p where a = 5
select count(*) from p where a < 0
select * from pp where a = 5
select * from pp where a = 5 and b = 'x'
select * from v
select * from f()
select g()
explain (costs off) select * from p where a = 5
select 1 where exists (select from p where a = 1)
select * from (select * from p) q where a = 7
with q as (select * from p) select * from q where a = 8
select * from p x join p y on x.a = y.a where x.a = 3
copy (select * from p where a = 5) to stdout
--> free
select * from okp where a = 5
select * from only okp where a = 5

--# partition keys folded : li
create table atk.t(a int, b int) partition by range ((a + atk.li(1)));
create table atk.t1 partition of atk.t for values from (0) to (100);
create table atk.t2 partition of atk.t for values from (100) to (200);
create table atk.l(a int) partition by list (atk.li(a));
create table atk.l1 partition of atk.l for values in (1);
create table atk.h(a int) partition by hash ((a * atk.li(1)));
create table atk.h0 partition of atk.h for values with (modulus 1, remainder 0);
create view atk.v as select * from atk.t where a = 3;
create function atk.f() returns bigint language sql stable as 'select count(*) from atk.t';
create table atk.okt(a int, b int) partition by range ((a + 1));
create table atk.okt1 partition of atk.okt for values from (0) to (100);
insert into atk.okt values (1, 2);
--> locks
select * from t where a = 5
select * from t
select count(*) from t where b = 1
select * from v
select f()
select * from h where a = 1
explain (costs off) select * from t
select (select max(a) from t)
select 1 where exists (select from t)
select * from (select a from t union all select 1) q
declare c cursor for select * from t
select t from t
--> free
select * from okt where a = 1
select count(*) from okt
select * from okt1

--# the partition itself : li
create table atk.t(a int, b int) partition by range ((a + atk.li(1)));
create table atk.t1 partition of atk.t for values from (0) to (100);
create table atk.t2 partition of atk.t default;
set constraint_exclusion = partition;
--> locks
select * from t where a + 1 = 5
select * from t order by a
select a from t where a = any (array[1, 2])

--# partition operator classes : ct
create function atk.pcmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.pcmp(atk.ct,atk.ct);
create table atk.pt(a atk.ct, n int) partition by range (a);
create table atk.p1 partition of atk.pt for values from ('(1)') to ('(10)');
create table atk.p2 partition of atk.pt for values from ('(10)') to ('(20)');
--> locks
select * from pt
select n from pt where n = 1
select n from pt where a < row(5)::ct
select count(*) from pt
explain (costs off) select n from pt
select n from pt order by a

--# partition keys of integers with another operator class
create function atk.icmp(a int, b int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a - b; end$z$;
create operator class atk.iops for type int4 using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.icmp(int, int);
create table atk.t(a int, b int) partition by range (a atk.iops);
create table atk.t1 partition of atk.t for values from (0) to (10);
create table atk.t2 partition of atk.t for values from (10) to (20);
create function atk.ihash(a int, seed int8) returns int8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.ihash0(a int) returns int language sql immutable as 'select 1';
create operator class atk.ihops for type int4 using hash as operator 1 =, function 1 atk.ihash0(int), function 2 atk.ihash(int, int8);
create table atk.h(a int) partition by hash (a atk.ihops);
create table atk.h0 partition of atk.h for values with (modulus 2, remainder 0);
create table atk.h1 partition of atk.h for values with (modulus 2, remainder 1);
create table atk.i(a int, b int);
insert into atk.i select g, g from generate_series(1, 1000) g;
create index on atk.i(a atk.iops);
analyze atk.i;
--> locks
select * from t where a = 5
select * from t
select * from h where a = 5
select * from h where a in (1, 2)
select b from i where a = 5
select b from i where a between 5 and 7
select x.b from i x join i y using (a) where x.b = 3
--> free
select count(*) from i where b = 5
select * from h

--# statistics expressions folded : li
create table atk.t(a int, b int);
insert into atk.t select g,g from generate_series(1,100) g;
create statistics atk.st on (a + atk.li(1)), b from atk.t;
analyze atk.t;
create table atk.u(a int, b int);
insert into atk.u select g,g from generate_series(1,100) g;
create statistics atk.su on (a * atk.li(2)) from atk.u;
create table atk.okt(a int, b int);
insert into atk.okt select g,g from generate_series(1,100) g;
create statistics atk.sok on (a + 1), b from atk.okt;
analyze atk.okt;
create view atk.v as select * from atk.t where a = 4;
--> locks
select * from t where a = 5 and b = 6
select count(*) from t where a > 7
select * from v
explain (costs off) select * from t where a = 5
select a + 1, count(*) from t group by a + 1
select t.b from t join okt using (a) where t.a = 3
--> free
select * from okt where a = 5 and b = 6
select a + 1, count(*) from okt group by a + 1

--# index expressions folded : li
create table atk.t(a int, b text);
insert into atk.t select generate_series(1,100), 'x';
create index on atk.t ((a + atk.li(1)));
create unique index on atk.t (lower(b), (atk.li(a)));
create table atk.okt(a int, b text);
insert into atk.okt select generate_series(1,100), 'x';
create index on atk.okt (lower(b));
create index on atk.okt (a) where a > 50;
create view atk.v as select * from atk.t;
create materialized view atk.mv as select a from atk.okt;
create index on atk.mv ((a + atk.li(1)));
create table atk.k() inherits (atk.okt);
create table atk.par(a int);
create table atk.kid() inherits (atk.par);
create index on atk.kid ((a * atk.li(1)));
create table atk.toast(a text);
create index on atk.toast using hash ((length(a) + atk.li(1)));
--> locks
select * from t where a = 5
select * from t
select count(*) from t
select * from v where b = 'y'
select * from mv
select a from mv where a = 4
select * from par
select * from toast
explain (costs off) select * from t
select 1 where exists (select from t where a = 5)
select t from t limit 1
table v
--> free
select * from okt where a = 51
select * from only okt where lower(b) = 'x'

--# index predicates folded : li
create table atk.t(a int, b int);
insert into atk.t select g, g from generate_series(1,100) g;
create index on atk.t (a) where a > atk.li(1);
create table atk.u(a int, b bool);
create unique index on atk.u (a) where atk.li(1) = 1;
create function atk.f() returns bigint language plpgsql stable as $z$begin return (select count(*) from t); end$z$;
create table atk.okt(a int);
create index on atk.okt (a) where a > 1;
--> locks
select * from t where a = 5
select * from t where b = 5
select count(*) from t
select * from u
select f()
explain (costs off) select b from t where a > 10
select x.a from okt x left join t y using (a)
select a from t union select a from okt
--> free
select * from okt where a = 5
select count(*) from okt

--# functions declared immutable : li
create function atk.lis(x int) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return x; end$z$;
create function atk.sqli(x int) returns int language sql immutable as $z$select 1 from (select pg_advisory_lock_shared(4242)) q$z$;
create function atk.sqlv(x int) returns int language sql volatile as $z$select atk.li(1) + x$z$;
create table atk.t(a int);
insert into atk.t values (1), (2);
create view atk.v as select a from atk.t where a = atk.li(1);
create view atk.w as select a, atk.li(1) as z from atk.t;
create view atk.never as select a from atk.t where false and a = atk.li(1);
create function atk.oki(x int) returns int language plpgsql immutable as $z$begin return x * 2; end$z$;
create view atk.okv as select a from atk.t where a = atk.oki(1);
--> locks
select a from t where a = li(1)
select a from t where a = lis(1)
select li(a) from t
select sqli(1)
select sqlv(1)
select * from v
select z from w
explain select a from t where a = li(1)
explain (costs off) select * from v
explain (costs off) select sqlv(1)
explain (costs off) select a from t where a < lis(3)
explain (generic_plan) select a from t where a = li(1)
select 1 limit li(1)
select case when a > 5 then li(a) else li(1) end from t
select count(*) from t group by li(1), a
select a from t order by li(a)
select a from t tablesample bernoulli (li(100))
select a from t where a in (select li(1))
select * from generate_series(1, li(2))
select format('%s', li(1))
select a from t where case when false then true else li(1) = 1 end
--> free
select oki(1)
select a from t where a = oki(1)
select * from okv
explain (costs off) select oki(3)
select a from t where a = 1

--# plain EXPLAIN runs what the planner folds : li
create function atk.vol(x int) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return x; end$z$;
create function atk.inlined(x int) returns int language sql volatile as $z$select atk.li(7)$z$;
create function atk.srf(x int) returns setof int language sql stable as $z$select x where atk.li(7) = 7$z$;
create function atk.dflt(a int default atk.li(1)) returns int language sql stable as 'select a';
create table atk.t(a int);
insert into atk.t select generate_series(1, 10);
analyze atk.t;
create domain atk.dd as int check (value > 0);
create domain atk.ddd as int check (atk.li(value) > 0);
--> locks
explain select inlined(1)
explain select * from srf(1)
explain select dflt()
explain select 1 where li(1) = 2
explain select a from t where a > li(5)
explain (costs off) select a from t where a between li(1) and li(3)
explain (verbose) select li(1)
explain (analyze) select vol(1)
explain (analyze, verbose, timing off) select a from t where vol(a) > 0
explain (format json, analyze) select vol(1)
explain (costs off) select li(1) union all select 2
explain (costs off) select count(*) filter (where li(1) = 1) from t
explain (costs off) select a from t limit li(1)
explain (analyze 1) select vol(1)
explain (analyze on) select vol(1)
explain (costs off) declare c cursor for select a from t where a = li(1)
explain (analyze) select 1::ddd
--> free
explain (costs off) select vol(1)
explain (costs off) select a from t where vol(a) > 0
explain (costs off) select a from t
explain (analyze off, costs off) select vol(1)
explain (costs off) select 1::dd
explain (analyze, costs off, timing off, summary off, buffers off) select count(*) from t

--# row security
--: role reader
create table atk.t(a int, b text);
insert into atk.t values (1, 'x'), (2, 'y');
alter table atk.t enable row level security;
create policy p on atk.t for select using (atk.lockb(a));
create view atk.v as select * from atk.t;
create view atk.w with (security_invoker) as select * from atk.t;
alter view atk.v owner to reader;
create function atk.f() returns bigint language sql stable as 'select count(*) from atk.t';
create function atk.g() returns bigint language plpgsql stable as $z$begin return (select count(*) from atk.t); end$z$;
create table atk.okt(a int, b text);
insert into atk.okt values (1, 'x'), (2, 'y');
alter table atk.okt enable row level security;
create policy p on atk.okt using (a = 1);
create policy q on atk.okt for delete using (atk.lockb(a));
create policy r on atk.okt for insert with check (atk.lockb(a));
grant select on all tables in schema atk to reader;
--> locks
select * from t
select a from t where b = 'x'
select count(*) from t
select * from v
select * from w
select f()
select g()
select 1 where exists (select from t)
copy t to stdout
copy (select * from t) to stdout
copy t (a) to stdout
declare c cursor for select * from t
explain (analyze) select * from t
with q as (select a from t) select * from q
--> free
select * from okt
select b from okt where a = 1

--# restrictive and nested policies
--: role reader
create table atk.t(a int);
insert into atk.t values (1);
create table atk.u(a int);
insert into atk.u values (1);
create table atk.k(a int);
insert into atk.k values (1);
create table atk.par(a int);
create table atk.kid() inherits (atk.par);
insert into atk.kid values (1);
alter table atk.t enable row level security;
alter table atk.u enable row level security;
alter table atk.par enable row level security;
alter table atk.kid enable row level security;
create policy p1 on atk.t using (true);
create policy p2 on atk.t as restrictive using (exists (select from atk.u where u.a = t.a));
create policy p on atk.u using (atk.lockb(a));
create policy p on atk.par using (atk.lockb(a));
create policy p on atk.kid using (true);
create table atk.pp(a int) partition by list (a);
create table atk.pk partition of atk.pp for values in (1);
insert into atk.pp values (1);
alter table atk.pp enable row level security;
create policy p on atk.pp for all to public using ((select atk.lockb(1)));
grant select on all tables in schema atk to reader;
--> locks
select * from t
select * from k where a in (select a from t)
select * from par
select * from pp
select k.a from k join t using (a)
--> free
select * from k
select * from kid
select * from pk

--# generated columns
create function atk.li2(x int) returns int language sql immutable as 'select x + 1';
create table atk.t(a int, v int generated always as (a + 1) virtual, s int generated always as (atk.li2(a)) stored);
insert into atk.t values (1);
create table atk.u(a int, v text generated always as (a || 'x') virtual);
insert into atk.u values (1);
--> free
select v from t
select s from t
select * from t where v = 2
--> refused
select w from u


--# views over functions
create view atk.v as select atk.lockit(1) as n;
create view atk.v2 as select n, 1 as o from atk.v;
create view atk."V 3" as select * from atk.v2 where n > 0;
create view atk.vb with (security_barrier) as select * from atk."V 3";
create view atk.vw as with q as (select atk.lockit(5) as n) select * from q;
create view atk.vl as select x.* from (values (1)) v(i), lateral (select atk.lockit(i) as n) x;
create view atk.vo as select g from generate_series(1, 3) g order by atk.lockit(g);
create view atk.vu as select 1 as n union all select atk.lockit(2);
create view atk.vs as select (select atk.lockit(1)) as n;
create recursive view atk.vr(n) as values (atk.lockit(1)) union all select n + 1 from vr where n < 3;
create view atk.ok as select g as n from generate_series(1, 3) g;
create view atk.oktext as select 'atk.lockit(1)' as n;
--> locks
select * from v
select n from v
select * from v2
select * from "V 3"
select * from vb
select * from vw
select n from vl
select g from vo
select * from vu
select * from vs
select * from vr
table v
select v from v
select v.n from atk.v as v
select row_to_json(v) from v
select (v).n from v
select n from "V 3" x where exists (select from vb)
select 1 where (select n from v) = 1
select * from ok natural join v
select * from (v cross join ok)
--> free
select * from ok
select * from oktext
with v as (select 1 as n) select * from v

--# views whose columns nobody reads
create view atk.v as select atk.lockit(1) as n, 2 as o;
create view atk.okw as select 1 as n, 2 as o;
--> locks
select o from v
select 1 from v
select count(*) from v
select o from (select * from v) q
--> free
select o from okw

--# relations in the server's own schemas
--: undo drop sequence information_schema.seq; drop function information_schema.peek(int)
create view information_schema.mine as select atk.lockit(1) as n;
create view information_schema."columns x" as select atk.lockit(1) as n;
create function information_schema.peek(int) returns int language sql stable as 'select atk.lockit($1)';
create domain information_schema.dom as int check (atk.lockb(value));
create sequence information_schema.seq;
select nextval('information_schema.seq');
--> locks
select * from information_schema.mine
select n from information_schema.mine where n = 1
select * from information_schema."columns x"
select information_schema.peek(1)
select 1::information_schema.dom
select (select n from information_schema.mine)
select pg_input_is_valid('1', 'information_schema.dom')
--> differs
select last_value from information_schema.seq
table information_schema.seq
--> free
select count(*) > 1 from information_schema.tables
select 'x'::information_schema.sql_identifier
select 1::information_schema.cardinal_number

--# relations in pg_catalog
--: undo drop function pg_catalog.peek_(int)
set allow_system_table_mods = on;
create view pg_catalog.mine as select atk.lockit(1) as n;
create function pg_catalog.peek_(int) returns int language plpgsql stable as $z$begin return atk.lockit($1); end$z$;
create domain pg_catalog.dom_ as int check (atk.lockb(value));
create view pg_catalog.pg_mine as select n from pg_catalog.mine;
reset allow_system_table_mods;
--> locks
select * from mine
select * from pg_catalog.mine
select peek_(1)
select pg_catalog.peek_(1)
select 1::dom_
select '1'::pg_catalog.dom_
select * from pg_mine
--> free
select count(*) > 1 from pg_class
select relname from pg_class where oid = 'pg_class'::regclass

--# a view of the server's own that was replaced
set allow_system_table_mods = on;
create view pg_catalog.pg_widgets as select 1 as n;
create or replace view pg_catalog.pg_widgets as select atk.lockit(1) as n;
reset allow_system_table_mods;
--> locks
select * from pg_widgets
select n from pg_catalog.pg_widgets

--# materialized views
create materialized view atk.mv as select atk.lockit(1) as n;
create view atk.v as select n from atk.mv;
--> free
select * from mv
select * from v
--> refused
refresh materialized view mv

--# unlogged tables and children
create unlogged table atk.u(a int);
create table atk.p(a int);
create unlogged table atk.k() inherits (atk.p);
create table atk.pp(a int) partition by list (a);
create unlogged table atk.pk partition of atk.pp for values in (1);
create view atk.v as select * from atk.u;
create function atk.f() returns bigint language sql stable as 'select count(*) from atk.u';
--> refused
select * from u
select * from p
select * from pp
select * from v
select f()
select count(*) from k
--> free
select * from only p

--# foreign tables
create extension file_fdw schema atk;
create server files foreign data wrapper file_fdw;
create foreign table atk.ft(line text) server files options (filename 'PG_VERSION');
create foreign table atk.fport(line text) server files options (filename 'postmaster.pid');
create foreign table atk.fprog(line text) server files options (program 'cat postmaster.pid');
create view atk.v as select line from atk.fport;
create table atk.p(line text);
create foreign table atk.fk() inherits (atk.p) server files options (filename 'postmaster.pid');
create function atk.f() returns setof text language sql stable as 'select line from atk.fport';
create table atk.pp(line text, n int) partition by list (n);
create foreign table atk.pk partition of atk.pp for values in (1) server files options (program 'head -2 postmaster.pid | sed "s/^/1\t/" | awk "{print \$2 FS 1}" | tr " " "\t"');
--> differs
select * from fport
select * from fprog
select * from v
select * from p
select * from f()
select * from pp
with q as (select * from fport) select * from q

--# dblink
create extension dblink schema atk;
create view atk.v as select * from atk.dblink('host=127.0.0.1 user=postgres dbname=postgres port=' || current_setting('port'), 'select pg_is_in_recovery()') as t(a bool);
create function atk.f() returns text language plpgsql stable as $z$declare r text; begin select a into r from dblink('host=127.0.0.1 user=postgres dbname=postgres port=' || current_setting('port'), 'show port') as t(a text); return r; end$z$;
--> differs
select f()
select * from v
select * from dblink('host=127.0.0.1 user=postgres dbname=postgres port=' || current_setting('port'), 'select pg_is_in_recovery()') as t(a bool)
select dblink_connect('host=127.0.0.1 user=postgres dbname=postgres port=' || current_setting('port')); select a from dblink('show port') as t(a text)

--# aggregates
create function atk.sf(s int, v int) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return v; end$z$;
create function atk.ssf(s int, v int) returns int language plpgsql immutable as $z$begin return coalesce(s, 0) + v; end$z$;
create function atk.ff(s int) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return s; end$z$;
create function atk.inv(s int, v int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return s - v; end$z$;
create aggregate atk.a1(int) (sfunc = atk.sf, stype = int);
create aggregate atk.a2(int) (sfunc = atk.ssf, stype = int, finalfunc = atk.ff);
create aggregate atk.a3(int) (sfunc = atk.ssf, stype = int, initcond = '0', msfunc = atk.ssf, minvfunc = atk.inv, mstype = int, minitcond = '0');
create aggregate atk.a4(int) (sfunc = atk.ssf, stype = int, initcond = '0', msfunc = atk.ssf, minvfunc = atk.ssf, mstype = int, mfinalfunc = atk.ff, minitcond = '0');
create function atk.vsf(s int, variadic v int[]) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create aggregate atk.a5(variadic int[]) (sfunc = atk.vsf, stype = int);
create function atk.rsf(s int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create aggregate atk.a6(*) (sfunc = atk.rsf, stype = int);
create domain atk.d as int check (atk.lockb(value));
create aggregate atk."A 9"(int) (sfunc = atk.ssf, stype = int, finalfunc = atk.ff);
create aggregate atk.oka(int) (sfunc = atk.ssf, stype = int, initcond = '0');
create view atk.v as select atk.a2(g) as n from generate_series(1, 3) g;
create function atk.f() returns int language sql stable as 'select atk.a2(g) from generate_series(1, 3) g';
create function atk.g() returns int language plpgsql stable as $z$begin return (select a2(x) from generate_series(1, 3) x); end$z$;
--> locks
select a1(g) from generate_series(1, 3) g
select a2(g) from generate_series(1, 3) g
select a2(distinct g order by g) from generate_series(1, 3) g
select a2(g) filter (where g > 5) from generate_series(1, 3) g
select a2(g) over (order by g) from generate_series(1, 3) g
select a3(g) over (order by g rows between 1 preceding and current row) from generate_series(1, 5) g
select a4(g) over (order by g rows between 1 preceding and 1 following) from generate_series(1, 5) g
select a5(1, 2) from generate_series(1, 3) g
select a5(variadic array[g]) from generate_series(1, 3) g
select a6(*) from generate_series(1, 3) g
select "A 9"(g) from generate_series(1, 3) g
select g % 2, atk.a2(g) from generate_series(1, 3) g group by 1 order by 1
select g % 2 from generate_series(1, 3) g group by 1 having a2(g) > 0
select * from v
select f()
select g()
select a1(g) over w from generate_series(1, 3) g window w as (partition by g)
--> free
select oka(g) from generate_series(1, 3) g
select oka(g) over (order by g) from generate_series(1, 3) g
select a3(g) from generate_series(1, 3) g
select sum(g), max(g) from generate_series(1, 3) g

--# aggregates that run in pieces
create function atk.ssf(s int, v int) returns int language plpgsql immutable parallel safe as $z$begin return coalesce(s, 0) + v; end$z$;
create function atk.comb(s int, v int) returns int language plpgsql immutable parallel safe as $z$begin perform pg_advisory_lock_shared(4242); return coalesce(s, 0) + coalesce(v, 0); end$z$;
create aggregate atk.pa(int) (sfunc = atk.ssf, stype = int, combinefunc = atk.comb, parallel = safe);
create table atk.pt(a int, k int) partition by hash (k);
create table atk.p0 partition of atk.pt for values with (modulus 2, remainder 0);
create table atk.p1 partition of atk.pt for values with (modulus 2, remainder 1);
insert into atk.pt select g, g from generate_series(1, 1000) g;
analyze atk.pt;
--> locks
set enable_partitionwise_aggregate = on; select pa(a) from pt
--> free
select sum(a) from pt

--# ordered-set and hypothetical-set aggregates
create function atk.sf(s float8[], v float8) returns float8[] language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return s; end$z$;
create function atk.ff(s float8[], p numeric) returns float8 language sql immutable as $z$select 1::float8$z$;
create aggregate atk.percentile_cont(numeric order by float8) (sfunc=atk.sf, stype=float8[], initcond='{}', finalfunc=atk.ff);
create function atk.osafe(s float8[], v float8) returns float8[] language sql immutable as 'select s';
create function atk.mf(s float8[]) returns float8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create aggregate atk.mymed(order by float8) (sfunc=atk.osafe, stype=float8[], initcond='{}', finalfunc=atk.mf);
create aggregate atk.myrank(p numeric order by v float8) (sfunc=atk.sf, stype=float8[], initcond='{}', finalfunc=atk.ff);
create function atk.okf(s float8[]) returns float8 language plpgsql immutable as $z$begin return 1; end$z$;
create aggregate atk.okmed(order by float8) (sfunc=atk.osafe, stype=float8[], initcond='{}', finalfunc=atk.okf);
--> locks
select percentile_cont(0.5) within group (order by x) from (values (1::float8)) v(x)
select percentile_cont(0.5) within group (order by x desc) filter (where x > 0) from (values (1::float8)) v(x)
select mymed() within group (order by x) from (values (1::float8)) v(x)
select atk.myrank(0.5) within group (order by x) from (values (1::float8)) v(x)
select coalesce(mymed() within group (order by x), 0) from (values (1::float8)) v(x)
--> free
select okmed() within group (order by x) from (values (1::float8)) v(x)
select percentile_disc(0.5) within group (order by x) from (values (1::float8)) v(x)
select mode() within group (order by x) from (values (1::float8)) v(x)

--# window functions
create function atk.wf(int) returns int language sql volatile as 'select atk.lockit($1)';
create function atk.rn() returns int8 language internal window volatile as 'window_row_number';
create function atk.okrn() returns int8 language internal window immutable as 'window_row_number';
--> locks
select row_number() over (order by lockit(g)) from generate_series(1, 2) g
select row_number() over (partition by lockit(g)) from generate_series(1, 2) g
select sum(g) over (order by g rows lockit(1) preceding) from generate_series(1, 2) g
select sum(lockit(g)) over () from generate_series(1, 2) g
select sum(g) filter (where lockb(g)) over () from generate_series(1, 2) g
select lag(g, lockit(1)) over () from generate_series(1, 2) g
select nth_value(g, lockit(1)) over () from generate_series(1, 2) g
select ntile(lockit(1)) over () from generate_series(1, 2) g
select count(*) over w from generate_series(1, 2) g window w as (order by lockit(g))
select wf(g) from generate_series(1, 2) g
--> free
select okrn() over () from generate_series(1, 2) g
select row_number() over () from generate_series(1, 2) g
select rn() over () from generate_series(1, 2) g

--# names with quotes and capitals
create function atk."Lock It"(int) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk."a""b"(int) returns int language plpgsql stable as $z$begin return "Lock It"(1); end$z$;
create function atk."x.y"(int) returns int language plpgsql stable as $z$begin return atk."a""b"(1); end$z$;
create function atk."select"(int) returns int language plpgsql stable as $z$begin return "x.y"(1); end$z$;
create function atk."count"(text, text) returns int language plpgsql stable as $z$begin return atk . "select" ( 1 ); end$z$;
create function atk."ABS"(int) returns int language plpgsql stable as $z$begin return "select"(1); end$z$;
create function atk."$1"(int) returns int language plpgsql stable as $z$begin return "ABS"(1); end$z$;
create function atk.a$b(int) returns int language plpgsql stable as $z$begin return "$1"(1); end$z$;
create function atk."--"(int) returns int language plpgsql stable as $z$begin return a$b(1); end$z$;
create function atk."/*"(int) returns int language plpgsql stable as $z$begin return "--"(1); end$z$;
create function atk."'"(int) returns int language plpgsql stable as $z$begin return "/*"(1); end$z$;
create function atk."$$"(int) returns int language plpgsql stable as $z$begin return "'"(1); end$z$;
create function atk."PERFORM"(int) returns int language plpgsql stable as $z$begin return "$$"(1); end$z$;
create function atk."return x;"(int) returns int language plpgsql stable as $z$begin return "PERFORM"(1); end$z$;
create function atk."OK It"(int) returns int language plpgsql stable as $z$begin return 1; end$z$;
--> locks
select "Lock It"(1)
select "a""b"(1)
select "x.y"(1)
select "select"(1)
select "count"('a', 'b')
select atk.count('a'::text, 'b'::text)
select "ABS"(1)
select "$1"(1)
select a$b(1)
select A$B(1)
select "--"(1)
select "/*"(1)
select "'"(1)
select "$$"(1)
select atk."PERFORM"(1)
select "return x;"(1)
select U&"Lock\0020It"(1)
select U&"L!006fck It" uescape '!' (1)
select atk . /* x */ "Lock It" /* y */ (1)
--> free
select "OK It"(1)
select abs(1)
select 'Lock It(1)'

--# names with umlauts and other letters
create function atk.Ändern(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f1() returns int language plpgsql stable as $z$begin perform Ändern(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin perform ändern(1); return 1; end$z$;
create function atk."Ändern2"(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f3() returns int language plpgsql stable as $z$begin perform "Ändern2"(1); return 1; end$z$;
create function atk.функция(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f4() returns int language plpgsql stable as $z$begin return функция(1); end$z$;
create function atk.関数(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f5() returns int language plpgsql stable as $z$begin return 関数 (1); end$z$;
create function atk."K"(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f6() returns int language plpgsql stable as $z$begin return "K"(1); end$z$;
create function atk.e😀(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f7() returns int language plpgsql stable as $z$begin return e😀(1); end$z$;
create function atk.İx(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f8() returns int language plpgsql stable as $z$begin return İX(1); end$z$;
create function atk."a b"(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f9() returns int language plpgsql stable as $z$begin return "a b"(1); end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin return U&"\0430"(1); end$z$;
create function atk.а(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.g1() returns int language sql stable as $z$select atk.Ändern(1)$z$;
create function atk.²(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.g2() returns int language plpgsql stable as $z$begin return ²(1); end$z$;
create function atk.okay_ä() returns int language plpgsql stable as $z$declare größe int := 1; begin return größe; end$z$;
--> locks
select Ändern(1)
select f1()
select "Ändern2"(1)
select f3()
select функция(1)
select f4()
select 関数(1)
select f5()
select "K"(1)
select f6()
select e😀(1)
select f7()
select İX(1)
select f8()
select f9()
select f10()
select U&"\0430"(1)
select g1()
select ²(1)
select g2()
--> refused
select f2()
--> free
select okay_ä()

--# names of 63 bytes and more
create function atk.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f1() returns int language plpgsql stable as $z$begin perform atk.nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin perform atk."nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnX"(1); return 1; end$z$;
create function atk.f3() returns int language sql stable as $z$select nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnmmm(1)$z$;
create view atk.vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv as select atk.lockit(1) as n;
create domain atk.ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd as int check (atk.lockb(value));
create function atk.ääääääääääääääääääääääääääääääää(int) returns int language plpgsql as $q$begin perform pg_advisory_lock_shared(4242); return 1; end$q$;
create function atk.f4() returns int language plpgsql stable as $z$begin return ääääääääääääääääääääääääääääääääää(1); end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare x ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd := 1; begin return x; end$z$;
--> locks
select nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn(1)
select nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn(1)
select "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnQ"(1)
select f1()
select f2()
select f3()
select f4()
select f5()
select * from vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv
select * from vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvwww
select 1::dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddxx
select ääääääääääääääääääääääääääääääääää(1)
select pg_input_is_valid('1', 'ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd')

--# functional and attribute notation
create type atk.ct as (x int);
create table atk.t(a int, c atk.ct);
insert into atk.t values (1, row(2));
create function atk.f(atk.t) returns int language sql volatile as 'select atk.lockit(1)';
create function atk.g(atk.ct) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk."G H"(atk.ct) returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.okf(atk.t) returns int language sql stable as 'select ($1).a';
create domain atk.d as text check (atk.lockb(1));
create function atk.p1() returns int language plpgsql stable as $z$declare v t; begin return v.f; end$z$;
create function atk.p2() returns int language plpgsql stable as $z$declare r record; begin for r in select * from t loop return (r.c).g; end loop; end$z$;
create function atk.p3(x atk.ct) returns int language sql stable as 'select (x).g';
create function atk.p4(x atk.ct) returns int language sql stable as 'select x.g';
create function atk.p5() returns int language plpgsql stable as $z$begin return (select t.f from t); end$z$;
create view atk.v as select t.f from atk.t;
create view atk.w as select (c).g from atk.t;
create function atk.upper_(text) returns int language sql volatile as 'select atk.lockit(1)';
--> locks
select t.f from t
select (t).f from t
select f(t) from t
select atk.t.f from atk.t
select (c).g from t
select (t.c).g from t
select ((t).c).g from t
select (row(1)::ct).g
select ('(1)'::ct).g
select (c)."G H" from t
select (t.c)."G H" from t
select t.f + 1 from t
select a from t where t.f = 1
select a from t order by t.f
select x.f from t x
select x.g from (select (c).* from t) q(y), lateral (select c as x from t) z, lateral (select z.x) w(x), lateral (select (w.x).g) x limit 1
select (select t.f) from t
select (array[t])[1].f from t
select (array_agg(t))[1].f from t
select (coalesce(t, null)).f from t
select p2()
select p3(row(1)::ct)
select p4(row(1)::ct)
select p5()
select * from v
select * from w
--> free
select t.okf from t
select (t).okf from t
select (c).x from t
select t.a from t

--# functional notation of casts to text
create type atk.ct as (x int);
create function atk.name(atk.ct) returns int language sql volatile as 'select atk.lockit(1)';
create function atk.text(atk.ct) returns int language sql volatile as 'select atk.lockit(1)';
create table atk.t(c atk.ct);
insert into atk.t values (row(2));
create table atk.u(name text);
insert into atk.u values ('x');
--> locks
select (c).name from t
select (c).text from t
select (t.c).name from t
select name(c) from t
select c.name from (select (t.c).name from t) c
--> free
select name from u
select u.name from u
select (u).name from u

--# functions in sql
create view atk.v as select atk.lockit(1) as n;
create function atk.a1(int) returns int language sql stable as 'select atk.lockit($1)';
create function atk.a2(x int) returns int language sql stable return atk.lockit(x);
create function atk.a3(x int) returns int language sql stable begin atomic select 1; select atk.lockit(x); end;
create function atk.a4(x int) returns int language sql stable begin atomic select atk.lockit(x); select 1; end;
create function atk.a5(x int) returns int language sql stable as 'select atk.lockit(x); select 2';
create function atk.a6(x int) returns int language sql stable as $z$select 'it''s' is null; /* ; */ select lockit(x) -- end
$z$;
create function atk.a8(x int) returns int language sql stable as $z$with q as (select lockit(x) as n) select n from q$z$;
create function atk.a9(x int) returns setof int language sql stable as $z$values (1), (lockit(2))$z$;
create function atk.a10(x int) returns table(n int) language sql stable as $z$table atk.v$z$;
create function atk.a11(x int) returns int language sql stable as $z$select case when x > 0 then (select n from v) end$z$;
create function atk.a12(x int) returns int language sql stable as $z$select n from atk.v limit lockit(1)$z$;
create function atk.a13(x int) returns void language sql stable as $z$select lockit(1)$z$;
create function atk.a14(x int) returns int language sql immutable strict leakproof parallel safe cost 1 as $z$select pg_advisory_lock_shared(4242) is null; select 1$z$;
create function atk.a15(x text default 'pg_advisory_lock_shared(1)') returns text language sql stable as $z$select x$z$;
create function atk.ok1(x int) returns int language sql volatile as 'select x + 1';
create function atk.ok2(x int) returns int language sql volatile return x * 2;
create function atk.ok3(x int) returns int language sql volatile begin atomic select x; end;
create function atk.ok4(x int) returns text language sql stable as $z$select 'select atk.lockit(1)'$z$;
create function atk.ok5(x int) returns int language sql stable as $z$select 1 -- select atk.lockit(1)
$z$;
create function atk.ok6(lockit int) returns int language sql stable as $z$select lockit$z$;
--> locks
select a1(1)
select a2(1)
select a3(1)
select a4(1)
select a5(1)
select a6(1)
select a8(1)
select * from a9(1)
select * from a10(1)
select a11(1)
select a12(1)
select a13(1)
select a14(1)
select a1(a2(a3(1)))
select * from a1(1) x(y)
select 1 where a1(1) = 1
--> free
select a15()
select ok1(1)
select ok2(1)
select ok3(1)
select ok4(1)
select ok5(1)
select ok6(1)

--# plpgsql: dollar quotes with signs of comments
create function atk.f1() returns int language plpgsql stable as $z$declare a text; begin a := $a$ /* $a$; perform pg_advisory_lock_shared(4242); a := $a$ */ $a$; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare a text; begin a := $a$ -- $a$; perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare a text; begin a := $$ /* $$; perform pg_advisory_lock_shared(4242); a := $$ */ $$; return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare a text; begin a := $a$ ' $a$; perform pg_advisory_lock_shared(4242); a := $a$ ' $a$; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare a text; begin a := $a$ " $a$; perform pg_advisory_lock_shared(4242); a := $a$ " $a$; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare a text; begin a := $a$ $$ $a$; perform pg_advisory_lock_shared(4242); a := $b$ $$ $b$; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare a text; begin a := $ä$ /* $ä$; perform pg_advisory_lock_shared(4242); a := $ä$ */ $ä$; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare a text; begin a := $A$ $a$ /* $A$; perform pg_advisory_lock_shared(4242); a := $A$ */ $a$ $A$; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare a$b$c int; begin perform pg_advisory_lock_shared(4242); a$b$c := 1; return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare a text; begin a := $a$ pg_advisory_lock_shared(4242) $a$; return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare a text; begin a := $$ perform atk.lockit(1); $$; return 1; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare a text; begin a := $a$ /* $a$; a := $a$ */ $a$; return 1; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: strings
create function atk.f1() returns int language plpgsql stable as $z$declare a text; begin a := E'\' /* '; perform pg_advisory_lock_shared(4242); a := '*/'; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare a text; begin a := '\'; perform pg_advisory_lock_shared(4242); a := '\'; return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare a text; begin a := 'it''s --'; perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare a text; begin a := e'\\'; perform pg_advisory_lock_shared(4242); a := '\'; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare a text; begin a := U&'\0027 /* '; perform pg_advisory_lock_shared(4242); a := ' */'; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare a text; begin a := U&'!0027 \' uescape '!'; perform pg_advisory_lock_shared(4242); a := '\'; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare a text; begin a := 'a'
'b --'; perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare a text; begin a := E'a'
'\' /* '; perform pg_advisory_lock_shared(4242); a := ' */'; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare a text; b bit(4); begin b := b'0101'; b := x'f'; a := n'--'; perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare a text; begin a := 'x'--'
; perform pg_advisory_lock_shared(4242); a := '--'; return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare e text := 'x'; begin e := e||'\'; perform pg_advisory_lock_shared(4242); e := '\'; return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare a text; begin a := 'perform pg_advisory_lock_shared(4242)'; return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare a text; begin a := E'\'; perform pg_advisory_lock_shared(4242); --'; return 1; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare a text; begin a := 'execute nextval lockit'; return length(a); end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: comments
create function atk.f1() returns int language plpgsql stable as $z$begin /* /* nested */ still */ perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin -- it's
 perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin -- /*
 perform pg_advisory_lock_shared(4242); -- */
 return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin /* -- */ perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin /* ' */ perform pg_advisory_lock_shared(4242); /* ' */ return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin /* $a$ */ perform pg_advisory_lock_shared(4242); /* $a$ */ return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin /* " */ perform pg_advisory_lock_shared(4242); /* " */ return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin perform/**/pg_advisory_lock_shared/**/(/**/4242/**/); return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin perform pg_advisory_lock_shared -- x
 (4242); return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin perform--
pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$begin perform atk/* . */./* . */lockit(1); return 1; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$begin --
 perform 1;
 perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$begin /*/ */ perform pg_advisory_lock_shared(4242); /*/ */ return 1; end$z$;
create function atk.f14() returns int language plpgsql stable as $z$declare a int := 4 --/* x
 ; b int; begin perform pg_advisory_lock_shared(4242); /* */ return 1; end$z$;
create function atk.f15() returns int language plpgsql stable as $z$declare a bool := 2*/*/ x */3 = 6; begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin /* perform pg_advisory_lock_shared(4242); */ return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$begin -- perform pg_advisory_lock_shared(4242);
 return 1; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin /* /* */ perform atk.lockit(1); */ return 1; end$z$;
create function atk.ok4() returns int language plpgsql stable as $z$begin return 1; /* nextval(1) execute */ end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
--> free
select ok1()
select ok2()
select ok3()
select ok4()

--# plpgsql: quoted names
create function atk."a""b"(int) returns int language sql volatile as 'select atk.lockit(1)';
create function atk.f1() returns int language plpgsql stable as $z$begin perform "lockit"(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin perform atk."lockit"(1); return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin perform "atk"."lockit"(1); return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin perform U&"lock\0069t"(1); return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin perform "pg_catalog"."pg_advisory_lock_shared"(4242); return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin perform pg_catalog . pg_advisory_lock_shared (4242); return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin perform U&"pg!005fadvisory_lock_shared" uescape '!' (4242); return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin perform "a""b"(1); return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare "lockit" int := 5; begin return lockit("lockit"); end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare ";" int; begin ";" := lockit(1); return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare "begin" int := 1; "end" int := lockit(1); begin return "begin"; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$declare "/*" int; begin "/*" := lockit(1); return "/*"; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare "lockit" int := 5; begin return "lockit"; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare "pg_advisory_lock" int := 5; begin return "pg_advisory_lock"; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare nextval int := 1; begin return nextval; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: loops : safe
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$begin loop perform lockit(1); exit; end loop; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin while lockit(1) = 0 loop null; end loop; return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin for i in 1..lockit(1) loop null; end loop; return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin for i in lockit(1)..3 loop null; end loop; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin for i in 1..9 by lockit(3) loop null; end loop; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin for i in reverse lockit(2)..1 loop null; end loop; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare r record; begin for r in select lockit(1) as n loop null; end loop; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare r record; begin for r in select n from v loop null; end loop; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare a int; b int; begin for a, b in select 1, lockit(2) loop null; end loop; return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare x int; begin foreach x in array array[lockit(1)] loop null; end loop; return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare x int[]; begin foreach x slice 1 in array array[[lockit(1)]] loop null; end loop; return 1; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$begin loop exit when lockb(1); end loop; return 1; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$begin for i in 1..2 loop continue when lockb(1); end loop; return 1; end$z$;
create function atk.f14() returns int language plpgsql stable as $z$begin <<l>> for i in 1..1 loop <<m>> while true loop exit l when lockb(1); end loop m; end loop l; return 1; end$z$;
create function atk.f15() returns int language plpgsql stable as $z$begin for i in 1..1 loop begin perform lockit(i); end; end loop; return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare n int := 0; begin for i in 1..10 loop n := n + i; end loop; return n; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare n int := 0; x int; begin foreach x in array array[1,2] loop n := n + x; end loop; return n; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare n int := 0; begin while n < 10 loop n := n + 1; exit when n = 5; end loop; return n; end$z$;
create function atk.ok4() returns int language plpgsql stable as $z$declare n int := 0; r record; begin for r in select b from nums loop n := n + r.b; end loop; return n; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
--> free
select ok1()
select ok2()
select ok3()
select ok4()

--# plpgsql: blocks and exceptions
create function atk.f1() returns int language plpgsql stable as $z$begin raise exception 'x'; exception when others then perform lockit(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin perform 1 / 0; exception when division_by_zero or sqlstate '22023' then return lockit(1); end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin begin perform 1 / 0; exception when others then null; end; return lockit(1); end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin begin begin begin perform lockit(1); end; end; end; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin declare x int := lockit(1); begin return x; end; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$<<o>> declare x int := 1; begin <<i>> declare x int := lockit(o.x); begin return i.x + o.x; end i; end o$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin raise exception using message = 'a', errcode = 'P0001'; exception when sqlstate 'P0001' then return lockit(1); end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare s text; begin perform 1 / 0; exception when others then get stacked diagnostics s = message_text; return lockit(length(s)); end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin raise sqlstate '22012'; exception when division_by_zero then if sqlerrm is not null then return lockit(1); end if; return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin perform lockit(1); raise exception 'back'; exception when others then perform lockit(2); return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin perform 1 / 0; return 0; exception when division_by_zero then return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare s text; begin perform 1 / 0; return 0; exception when others then get stacked diagnostics s = message_text; return length(s); end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin begin return 1; end; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: raise and assert
create function atk.f1() returns int language plpgsql stable as $z$begin raise debug '%', lockit(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin raise log '% %', 1, lockit(1); return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin raise info using message = lockit(1)::text; return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin raise debug 'x' using hint = lockit(1)::text; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin raise debug 'x' using detail = 'a', errcode = lpad(lockit(0)::text, 5, '0'); return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin assert lockb(1); return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin assert true and lockb(1), 'x'; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin begin assert false, lockit(1)::text; exception when assert_failure then null; end; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin raise debug '%%%', lockit(1); return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin raise debug 'lockit(1) %', 1; return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$begin assert 1 = 1, 'perform lockit(1)'; return 1; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin raise debug using message = 'pg_notify'; return 1; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: if and case
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$begin if lockb(1) then return 1; end if; return 2; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin if false then return 1; elsif lockb(1) then return 3; else return 2; end if; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin if false then return 1; elseif lockb(1) then return 3; end if; return 2; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin if false then null; else perform lockit(1); end if; return 2; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin case lockit(1) when 1 then return 5; else return 6; end case; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin case 1 when lockit(1), 2 then return 5; else return 6; end case; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin case when lockb(1) then return 5; end case; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin case 1 when 2 then null; else perform lockit(1); end case; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin return case when lockb(1) then 1 end; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin if exists (select from v) then return 1; end if; return 2; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$begin if found or lockb(1) then return 1; end if; return 2; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin if 1 = 1 then return 1; else return 2; end if; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$begin case 1 when 1, 2 then return 5; else return 6; end case; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin case when true then return 1; end case; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: cursors : safe
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$declare c cursor for select lockit(1); x int; begin open c; fetch c into x; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare c refcursor; x int; begin open c for select n from v; fetch next from c into x; return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare c cursor (k int) for select k; x int; begin open c(lockit(1)); fetch c into x; return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare c cursor (k int) for select k; x int; begin open c(k := lockit(1)); fetch c into x; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare c cursor for select lockit(1) as n; begin for r in c loop null; end loop; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare c cursor (k int) for select k; begin for r in c(lockit(1)) loop null; end loop; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare c refcursor; x int; begin open c for execute 'select atk.lock' || 'it(1)'; fetch c into x; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare c cursor for select lockit(g) from generate_series(1,3) g; begin open c; move forward 2 from c; close c; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare c scroll cursor for table v; x int; begin open c; fetch last from c into x; return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare c no scroll cursor is select lockit(1); x int; begin open c; fetch c into x; return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare c cursor for select b from nums order by a; x int; begin open c; fetch c into x; close c; return x; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare c cursor (k int) for select b from nums where a = k; n int := 0; begin for r in c(5) loop n := n + r.b; end loop; return n; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
--> free
select ok1()
select ok2()

--# plpgsql: dynamic text
create function atk.f1() returns int language plpgsql stable as $z$declare x int; begin execute 'select atk.lockit(1)' into x; return x; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare x int; begin execute 'select atk.lock' || 'it(1)' into x; return x; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare x int; begin execute reverse(')1(tikcol.kta tceles') into x; return x; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare x int; begin execute format('select %I.%I(1)', 'atk', 'lock' || 'it') into x; return x; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare x int; begin execute 'select atk.lock' || chr(105) || 't($1)' into x using 1; return x; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin execute 'select 1 where $1 = 1' using lockit(1); return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare r record; begin for r in execute 'select atk.l' || 'ockit(1)' loop null; end loop; return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare r record; begin for r in execute 'select $1' using lockit(1) loop null; end loop; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare x int; begin EXECUTE E'select atk.lo\x63kit(1)' into x; return 1; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare q text; x int; begin select string_agg(chr(a), '' order by o) into q from unnest(array[115,101,108,101,99,116,32,97,116,107,46,108,111,99,107,105,116,40,49,41]) with ordinality u(a, o); execute q into x; return x; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f11()

--# plpgsql: rows that are returned : safe
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns setof int language plpgsql stable as $z$begin return query select lockit(1); end$z$;
create function atk.f2() returns setof int language plpgsql stable as $z$begin return query select n from v; end$z$;
create function atk.f3() returns setof int language plpgsql stable as $z$begin return query values (1), (lockit(2)); end$z$;
create function atk.f4() returns setof int language plpgsql stable as $z$begin return query execute 'select atk.l' || 'ockit(1)'; end$z$;
create function atk.f5() returns setof int language plpgsql stable as $z$begin return query execute 'select $1' using lockit(1); end$z$;
create function atk.f6() returns setof int language plpgsql stable as $z$begin return next lockit(1); return; end$z$;
create function atk.f7() returns setof int language plpgsql stable as $z$begin return next 1; perform lockit(1); return; end$z$;
create function atk.f8() returns setof int language plpgsql stable as $z$begin return query with q as (select lockit(1) as n) select n from q; end$z$;
create function atk.f9() returns setof int language plpgsql stable as $z$begin return query select 1 union select lockit(2); end$z$;
create function atk.f10() returns setof int language plpgsql stable as $z$begin return query select 1 limit lockit(1); end$z$;
create function atk.f11() returns setof int language plpgsql stable as $z$begin return query (select lockit(1)); end$z$;
create function atk.ok1() returns setof int language plpgsql stable as $z$begin return query select b from nums where a < 3 order by a; end$z$;
create function atk.ok2() returns setof int language plpgsql stable as $z$begin return next 1; return next 2; return; end$z$;
create function atk.ok3() returns setof int language plpgsql stable as $z$begin return query select length('lockit(1)'); end$z$;
--> locks
select * from f1()
select * from f2()
select * from f3()
select * from f4()
select * from f5()
select * from f6()
select * from f7()
select * from f8()
select * from f9()
select * from f10()
select * from f11()
--> free
select * from ok1()
select * from ok2()
select * from ok3()

--# plpgsql: assignments : safe
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$declare x int; begin x := lockit(1); return x; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare x int; begin x = lockit(1); return x; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare x int[]; begin x[lockit(1)] := 1; return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare x int[] := array[1,2]; begin x[1:lockit(2)] := array[3,4]; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare r nums; begin r.a := lockit(1); return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare r record; begin select lockit(1) as n into r; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare r record; begin r := row(lockit(1)); return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare x int; begin select lockit(1) into strict x; return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$declare x int; begin select into x lockit(1); return 1; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare x int; begin x := n from v; return x; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$declare x int; begin x := 1 from nums where a = 1 and lockb(a); return x; end$z$;
create function atk.f12() returns int language plpgsql stable as $z$declare x int := 1; y int := x + lockit(1); begin return y; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$declare x constant int not null default lockit(1); begin return x; end$z$;
create function atk.f14() returns int language plpgsql stable as $z$declare x jsonb := '{}'; begin x[lockit(1)::text] := '1'; return 1; end$z$;
create function atk.f15() returns int language plpgsql stable as $z$declare r nums[]; begin r[1].a := lockit(1); return 1; end$z$;
create function atk.f16() returns int language plpgsql stable as $z$declare x int; begin x := (select n from v); return x; end$z$;
create function atk.f17() returns int language plpgsql stable as $z$declare x int; begin select a, lockit(b) from nums limit 1 into x; return 1; end$z$;
create function atk.f18() returns int language plpgsql stable as $z$declare a int; b int; begin select 1, lockit(2) into a, b; return a; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare x int := 1; begin x := x + 1; return x; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare r nums; begin r.a := 5; r.b := r.a; return r.b; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare x int[]; begin x[1] := 5; return x[1]; end$z$;
create function atk.ok4() returns int language plpgsql stable as $z$declare r record; begin select a, b into r from nums where a = 3; return r.b; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
select f16()
select f17()
select f18()
--> free
select ok1()
select ok2()
select ok3()
select ok4()

--# plpgsql: names of variables that hide functions
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$declare lockit int := 1; begin return lockit(lockit); end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare x int := 1; begin declare lockit int := 2; begin x := lockit + lockit (x); return x; end; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare pg_advisory_lock_shared int := 1; begin perform pg_advisory_lock_shared(4242); return pg_advisory_lock_shared; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare v int := 1; begin return (select n from v); end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare lockit int := 1; begin return lockit + 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare v int := 1; begin return v; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$declare nextval int := 1; setval int := 2; begin return nextval + setval; end$z$;
create function atk.ok4() returns int language plpgsql stable as $z$declare r record; begin select 1 as lockit into r; return r.lockit; end$z$;
create function atk.ok5() returns int language plpgsql stable as $z$begin return (select lockit from (select 1 as lockit) q); end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
--> free
select ok1()
select ok2()
select ok3()
select ok4()
select ok5()

--# plpgsql: perform and call : safe
create view atk.v as select atk.lockit(1) as n;
create procedure atk.p() language plpgsql as $q$begin perform atk.lockit(1); end$q$;
create procedure atk.p2(int) language sql as 'select atk.lockit($1)';
create procedure atk.p3(inout x int) language plpgsql as $q$begin x := atk.lockit(1); end$q$;
create function atk.f1() returns int language plpgsql stable as $z$begin perform lockit(1); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin PERFORM atk.LOCKIT(1); return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$begin perform 1, lockit(1); return 1; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$begin perform * from v; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin perform n from v where n = 1; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin perform 1 where lockb(1); return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin perform (select n from v); return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin perform distinct lockit(1); return 1; end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin perform count(*) from v; return 1; end$z$;
create function atk.f10() returns int language plpgsql as $z$begin call p(); return 1; end$z$;
create function atk.f11() returns int language plpgsql as $z$begin call atk.p2(1); return 1; end$z$;
create function atk.f12() returns int language plpgsql as $z$declare x int; begin call p3(x); return x; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$begin perform set_config('atk.mark', lockit(1)::text, true); return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin perform 1; return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$begin perform a from nums where a = 1; if found then return 1; end if; return 2; end$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin perform 'lockit(1)'; return 1; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
call p()
call p2(1)
call p3(2)
do $q$begin perform atk.lockit(1); end$q$
do language plpgsql $q$begin perform atk.lockit(1); end$q$
--> free
select ok1()
select ok2()
select ok3()

--# plpgsql: statements without a word for what they do : safe
create view atk.v as select atk.lockit(1) as n;
create function atk.f1() returns int language plpgsql stable as $z$declare v1 int; begin with q as (select lockit(1)) select count(*) into strict v1 from q; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare x int; begin x := (values (lockit(1))); return x; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare x int; begin x := (table v); return x; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare x int; begin get diagnostics x = row_count; x := x + lockit(1); return x; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin return lockit(1) from nums limit 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$begin return (with q(n) as (select * from v) select n from q); end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin return array_length(array(select lockit(a) from nums), 1); end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin return (select count(*) from nums where lockb(a)); end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin return (select count(*) from nums, lateral lockit(a)); end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin return (select max(a) from nums group by lockit(b) order by 1 limit 1); end$z$;
create function atk.f11() returns int language plpgsql stable as $z$begin return 1 + (select 1 order by lockit(1)); end$z$;
create function atk.f12() returns int language plpgsql stable as $z$begin return sum(lockit(a)) over () from nums limit 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$begin return b from nums where a = 7; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$begin return (with q as (select 1 as n) select n from q); end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
--> free
select ok1()
select ok2()

--# plpgsql: options and odd forms : safe
create function atk.f1() returns int language plpgsql stable as $z$
#variable_conflict use_column
begin return lockit(1); end$z$;
create function atk.f2() returns int language plpgsql stable as $z$
#print_strict_params on
begin return lockit(1); end$z$;
create function atk.f3() returns int language plpgsql stable as $z$
#variable_conflict use_variable
declare a int := 1; begin return (select lockit(a) from nums limit 1); end$z$;
create function atk.f4() returns int language plpgsql stable as $z$BEGIN RETURN LOCKIT(1); END;$z$;
create function atk.f5() returns int language plpgsql stable as $z$begin return
lockit
(
1
)
; end;$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare x int := 1; y alias for x; begin return lockit(y); end$z$;
create function atk.f7() returns int language plpgsql stable as $z$begin return lockit(1)+1*2-3/1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$begin return-lockit(1); end$z$;
create function atk.f9() returns int language plpgsql stable as $z$begin return(lockit(1)); end$z$;
create function atk.f10() returns int language plpgsql stable as $z$begin return case lockit(1)when 1 then 1 end; end$z$;
create function atk.f11() returns int language plpgsql stable as $z$begin perform 1;perform lockit(1);return 1;end$z$;
create function atk.f12() returns int language plpgsql stable as $z$begin null; null; return lockit(null) ; end$z$;
create function atk.f13() returns int language plpgsql stable as $z$begin return atk.
lockit	(1); end$z$;
create function atk.f14() returns int language plpgsql stable as $z$begin return lockit(x => 1); end$z$;
create function atk.f15() returns int language plpgsql stable as $z$begin return lockit(x := 1); end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$
#variable_conflict use_column
begin return 1; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$BEGIN RETURN 1; END;$z$;
create function atk.ok3() returns int language plpgsql stable as $z$begin return-1; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
select f10()
select f11()
select f12()
select f13()
select f14()
select f15()
--> free
select ok1()
select ok2()
select ok3()

--# length casts : bt
create function atk.bt_eq(a atk.bt, b atk.bt) returns bool language internal immutable strict as 'int4eq';
create function atk.tm_in(cstring[]) returns int language internal immutable strict as 'varchartypmodin';
create function atk.tm_out(int) returns cstring language internal immutable strict as 'varchartypmodout';
alter type atk.bt set (typmod_in = atk.tm_in, typmod_out = atk.tm_out);
create function atk.len(a atk.bt, n int) returns atk.bt language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return a; end$z$;
create cast (atk.bt as atk.bt) with function atk.len(atk.bt, int) as implicit;
create table atk.t(a atk.bt, n int);
insert into atk.t values ('1', 2);
create domain atk.dt as atk.bt(3);
create type atk.c as (a atk.bt(3));
create function atk.f(x atk.bt) returns int language plpgsql stable as $z$declare y bt(3); begin y := x; return 1; end$z$;
--> locks
select a::bt(3) from t
select cast(a as atk.bt(5)) from t
select '1'::bt(3)
select bt(3) '1'
select array[a]::bt(3)[] from t
select a::dt from t
select f(a) from t
select row(a)::c from t
select '{1}'::bt(3)[]
--> free
select a from t
select '1'::bt
select a::bt from t

--# estimators run operators while a statement is planned
create table atk.t(a int, b text);
insert into atk.t select g % 5, 'x' || g % 3 from generate_series(1, 1000) g;
analyze atk.t;
create function atk.lowint(a int, b int) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return a = b; end$z$;
create operator atk.=~= (leftarg=int, rightarg=int, function=atk.lowint, restrict=eqsel, join=eqjoinsel);
create operator atk.<~ (leftarg=int, rightarg=int, function=atk.lowint, restrict=scalarltsel);
create operator atk.@~ (leftarg=int, rightarg=int, function=atk.lowint, restrict=matchingsel);
create operator atk.@! (leftarg=int, rightarg=int, function=atk.lowint);
create view atk.v as select a from atk.t where a operator(atk.@~) 2;
--> locks
explain select * from t where a =~= 3
explain select * from t where a <~ 3
explain select * from t where a @~ 3
explain select * from v
explain select * from t x join t y on x.a =~= y.a
explain (costs off) select 1 from t where a @~ 3 and b = 'x1'
select count(*) from t where a @~ 3
select * from v limit 1
--> free
explain (costs off) select * from t where a @! 3

--# estimators run operators of the classes of a type
create table atk.t(a int);
insert into atk.t select g % 5 from generate_series(1, 1000) g;
analyze atk.t;
create function atk.low(a int, b numeric) returns bool language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.< (leftarg=int, rightarg=numeric, function=atk.low, restrict=scalarltsel);
create operator atk.= (leftarg=int, rightarg=numeric, function=atk.low, restrict=eqsel);
--> locks
select count(*) from t where a < 3.5
explain select * from t where a < 3.5
select a = 2.0 from t limit 1
select count(*) from t where a in (2.0, 3.0)
--> free
select count(*) from t where a < 3
select 2.5 < 3.5

--# a hash of partitions asked for by name
create function atk.ihash(a int, seed int8) returns int8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.ihash0(a int) returns int language sql immutable as 'select 1';
create operator class atk.ihops for type int4 using hash as operator 1 =, function 1 atk.ihash0(int), function 2 atk.ihash(int, int8);
create table atk.h(a int) partition by hash (a atk.ihops);
create table atk.h0 partition of atk.h for values with (modulus 2, remainder 0);
create table atk.okh(a int) partition by hash (a);
create table atk.okh0 partition of atk.okh for values with (modulus 2, remainder 0);
create view atk.v as select satisfies_hash_partition('atk.h'::regclass, 2, 0, 5) as x;
--> locks
select satisfies_hash_partition('h'::regclass, 2, 0, 5)
select satisfies_hash_partition('atk.h'::regclass, 2, 1, 7)
select * from v
select satisfies_hash_partition(c.oid, 2, 0, 5) from pg_class c where relname = 'h' and relnamespace = 'atk'::regnamespace
select * from h where a = 5
--> free
select * from okh where a = 5

--# functions of types called by hand : d
create type atk.c as (a atk.d);
create type atk.dr as range (subtype = atk.d, multirange_type_name = atk.dmr);
create table atk.t(a atk.d);
create domain atk.sd as int check (value > 0);
--> locks
select domain_in('1', 'atk.d'::regtype, -1) is null
select record_in('(1)', 'atk.c'::regtype, -1) is null
select record_in('(1)', 'atk.t'::regtype, -1)::text
select array_in('{1}', 'atk.d'::regtype, -1)::text
select range_in('[1,2]', 'atk.dr'::regtype, -1)::text
select multirange_in('{[1,2]}', 'atk.dmr'::regtype, -1)::text
select pg_catalog.domain_in('1', oid, -1) is null from pg_type where typname = 'd' and typnamespace = 'atk'::regnamespace
--> free
select int4in('1')
select array_in('{1}', 'int4'::regtype, -1)::text

--# built-ins in sql that cast what they are given
create type atk.ct as (x int);
create function atk.c2t(atk.ct) returns text language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 'x'; end$z$;
create cast (atk.ct as text) with function atk.c2t(atk.ct);
create type atk.e as enum ('a');
create function atk.e2t(atk.e) returns text language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 'x'; end$z$;
create cast (atk.e as text) with function atk.e2t(atk.e);
create table atk.t(c atk.ct, e atk.e, n text, i int);
insert into atk.t values (row(1), 'a', 'x', 1);
create view atk.v as select n || c as z from atk.t;
--> locks
select n || c from t
select c || n from t
select n || e from t
select 'x' || c from t
select quote_literal(c) from t
select quote_nullable(e) from t
select quote_literal(row(1)::ct)
select z from v
select textanycat(n, c) from t
select anytextcat(c, n) from t
select e || 'a'::text from t
--> free
select n || i from t
select quote_literal(i) from t
select concat(n, c) from t
select format('%s', c) from t
select c from t

--# offsets of a window's range : bt
create function atk.lt(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4lt';
create function atk.le(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4le';
create function atk.eq(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4eq';
create function atk.ge(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4ge';
create function atk.gt(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4gt';
create function atk.cmp(atk.bt,atk.bt) returns int language internal immutable strict as 'btint4cmp';
create function atk.inr(v atk.bt, b atk.bt, o int, s bool, l bool) returns bool language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.< (leftarg=atk.bt, rightarg=atk.bt, function=atk.lt);
create operator atk.<= (leftarg=atk.bt, rightarg=atk.bt, function=atk.le);
create operator atk.= (leftarg=atk.bt, rightarg=atk.bt, function=atk.eq);
create operator atk.>= (leftarg=atk.bt, rightarg=atk.bt, function=atk.ge);
create operator atk.> (leftarg=atk.bt, rightarg=atk.bt, function=atk.gt);
create operator class atk.bto default for type atk.bt using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.cmp(atk.bt,atk.bt), function 3 (atk.bt, int) atk.inr(atk.bt, atk.bt, int, bool, bool);
create table atk.t(a atk.bt, n int);
insert into atk.t values ('1', 1), ('2', 2), ('3', 3);
create view atk.v as select sum(n) over (order by a range between 1 preceding and 1 following) as s from atk.t;
--> locks
select sum(n) over (order by a range between 1 preceding and current row) from t
select sum(n) over (order by a range 1 preceding) from t
select count(*) over w from t window w as (order by a desc range between current row and 1 following)
select s from v
--> free
select n from t order by n
select sum(n) over (order by n range 1 preceding) from t

--# indexes that are used : bt
--: undo alter database situations reset enable_seqscan
create function atk.lt(atk.bt,atk.bt) returns bool language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return $1::text::int < $2::text::int; end$z$;
create function atk.le(atk.bt,atk.bt) returns bool language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return $1::text::int <= $2::text::int; end$z$;
create function atk.eq(atk.bt,atk.bt) returns bool language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return $1::text::int = $2::text::int; end$z$;
create operator atk.< (leftarg=atk.bt, rightarg=atk.bt, function=atk.lt);
create operator atk.<= (leftarg=atk.bt, rightarg=atk.bt, function=atk.le);
create operator atk.= (leftarg=atk.bt, rightarg=atk.bt, function=atk.eq);
create operator atk.>= (leftarg=atk.bt, rightarg=atk.bt, function=atk.le);
create operator atk.> (leftarg=atk.bt, rightarg=atk.bt, function=atk.lt);
create operator class atk.bb default for type atk.bt using brin as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 brin_minmax_opcinfo(internal), function 2 brin_minmax_add_value(internal, internal, internal, internal), function 3 brin_minmax_consistent(internal, internal, internal), function 4 brin_minmax_union(internal, internal, internal);
create table atk.t(a atk.bt, n int, g int[]);
insert into atk.t select g::text::atk.bt, g, array[g, g + 1] from generate_series(1, 200) g;
create index on atk.t using brin (a);
create function atk.gcmp(a int, b int) returns int language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return a - b; end$z$;
create operator class atk.go for type int[] using gin as operator 1 &&(anyarray, anyarray), operator 2 @>(anyarray, anyarray), function 1 atk.gcmp(int, int), function 2 ginarrayextract(anyarray, internal, internal), function 3 ginqueryarrayextract(anyarray, internal, int2, internal, internal, internal, internal), function 4 ginarrayconsistent(internal, int2, anyarray, int4, internal, internal, internal, internal), storage int;
create index on atk.t using gin (g atk.go);
create function atk.hh(a int) returns int language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return a; end$z$;
create operator class atk.ho for type int using hash as operator 1 =, function 1 atk.hh(int);
create index on atk.t using hash (n atk.ho);
analyze atk.t;
alter database situations set enable_seqscan = off;
--> locks
select n from t where g && array[5]
select n from t where g @> array[5, 6]
select g from t where n = 5
select n from t where a = '5'
select n from t where a < '5'
--> free
select count(n) from t

--# functions in FROM
create function atk.srf(int) returns setof int language sql stable as 'select atk.lockit(g) from generate_series(1, $1) g';
create function atk.tab(int) returns table(a int, b text) language plpgsql stable as $z$begin a := atk.lockit(1); b := 'x'; return next; end$z$;
create function atk.rec(int) returns record language plpgsql stable as $z$declare r record; begin select atk.lockit(1), 'x' into r; return r; end$z$;
create function atk.oks(int) returns setof int language sql stable rows 3 as 'select g from generate_series(1, $1) g';
create function atk.okt(int) returns table(a int, b text) language plpgsql as $z$begin a := 1; b := 'x'; return next; end$z$;
--> locks
select * from srf(3)
select srf(3)
select * from srf(3) with ordinality
select * from srf(3) as x(n) where n > 1
select * from generate_series(1, 2) g, srf(g)
select * from generate_series(1, 2) g, lateral srf(g) x
select * from generate_series(1, 2) g left join lateral srf(g) x on true
select * from rows from (srf(2), generate_series(1, 3))
select * from rows from (generate_series(1, 2), srf(1)) with ordinality as z(a, b, c)
select * from tab(1)
select tab(1)
select (tab(1)).b
select (tab(1)).*
select * from rec(1) as (a int, b text)
select array(select srf(2))
select generate_series(1, srf(2))
select unnest(array[srf(2)])
select * from unnest(array[lockit(1)], array[2]) u(a, b)
select * from (select srf(2)) q
select 1 in (select srf(2))
select * from tab(1) x natural join tab(2) y
select x.a from tab(1) x cross join lateral (select x.a as z) y
with q as materialized (select * from srf(2)) select count(*) from q
with q as not materialized (select * from srf(2)) select * from q
--> free
select * from oks(3)
select oks(3)
select * from okt(1)
select (okt(1)).b
select * from rows from (oks(2), generate_series(1, 3))

--# samples of tables
create table atk.t(a int);
insert into atk.t select generate_series(1, 10);
create view atk.v as select a from atk.t tablesample bernoulli (atk.lockit(100));
--> locks
select * from t tablesample bernoulli (lockit(100))
select * from t tablesample system (lockit(100)) repeatable (5)
select * from t tablesample system (100) repeatable (lockit(5))
select * from v
select * from (select a from t tablesample system (lockit(100))) q
--> free
select * from t tablesample system (100)
select * from t tablesample bernoulli (100) repeatable (5)

--# clauses of a query
create table atk.t(a int, b int);
insert into atk.t select g, g from generate_series(1, 5) g;
--> locks
select a from t where lockb(a)
select a from t limit lockit(1)
select a from t offset lockit(1)
select a from t fetch first (lockit(1)) rows only
select a from t order by a fetch first (lockit(1)) rows with ties
select a from t order by lockit(a)
select a from t group by a having lockb(a)
select count(*) from t group by lockit(a)
select count(*) from t group by grouping sets ((lockit(a)), ())
select count(*) from t group by rollup (lockit(a))
select distinct on (lockit(a)) a from t
select x.a from t x join t y on lockb(x.a)
select x.a from t x left join t y on x.a = y.a and lockb(y.b)
values (1, lockit(2)), (3, 4)
select * from (values (lockit(1))) v
select * from t where (a, b) in (values (lockit(1), 1))
with q as (select lockit(1) as n) select n from q
with recursive q as (select 1 as n union all select lockit(n + 1) from q where n < 3) select * from q
with recursive q as (select lockit(1) as n union select n from q) select * from q
with recursive q as (select 1 as n, 1 as m union all select n + 1, lockit(m) from q where n < 3) search depth first by n set o select n from q
with recursive q as (select 1 as n union all select lockit(n % 3 + 1) from q) cycle n set c using p select n from q
select 1 intersect select lockit(1)
select 1 except select lockit(2)
select 1 union all (select lockit(2) order by 1 limit 1)
select (select lockit(a)) from t
select array(select lockit(a) from t)
select a from t where exists (select lockit(1) from t limit 1) and a = lockit(1)
select a from t where a = any (select lockit(1))
select a from t where a > all (array[lockit(0)])
select case when lockb(1) then 1 else 2 end
select case lockit(1) when 1 then 2 end
select coalesce(null, lockit(1))
select nullif(lockit(1), 2)
select greatest(1, lockit(2))
select lockit(1) is distinct from 2
select lockb(1) is true
select not lockb(1)
select lockit(1) between 0 and 2
select row(lockit(1), 2)
select array[[1, lockit(2)], [3, 4]]
select (array[1, 2])[lockit(1)]
select (array[1, 2])[1:lockit(2)]
select ('{"a": 1}'::jsonb)[lockit(1)::text]
select count(distinct lockit(a)) from t
select array_agg(a order by lockit(a)) from t
select count(*) filter (where lockb(a)) from t
select percentile_disc(lockit(1)) within group (order by a) from t
select string_agg(a::text, lockit(1)::text) from t
select extract(year from date '2020-01-01' + lockit(1))
select substring('abc' from lockit(1) for 1)
select overlay('abc' placing 'x' from lockit(1))
select trim(both lockit(1)::text from 'x1')
select position(lockit(1)::text in 'x1')
select timestamp '2020-01-01' at time zone make_interval(hours => lockit(1))
select a from t where a::text like lockit(1)::text || '%' escape '\'
select xmlconcat(null) is null and lockb(1)
select json_object('a': lockit(1))
select json_array(1, lockit(2))
select json_array(select lockit(1))
select json_value('{}', '$.a' default lockit(1) on empty)
select json_exists('[1]', '$[*] ? (@ == $x)' passing lockit(1) as x)
select * from json_table('[1]', '$[*]' passing lockit(1) as x columns (a int path '$'))
select * from json_table('[{}]', '$[*]' columns (a int path '$.a' default lockit(1) on empty))
select * from json_table(lockit(1)::text::jsonb, '$' columns (a int path '$'))
select json_arrayagg(lockit(a)) from t
select json_objectagg(a: lockit(a)) from t
select merge_action is null from (select lockit(1)::text as merge_action) q
select grouping(a), lockit(a) from t group by a
table t union all select lockit(1), 2
(select lockit(1))
((table t) union (select lockit(1), 1))
select all lockit(1)
select lockit(1) as "a", 'x'
select lockit(1)::text is json
select row(lockit(1), 2) is distinct from row(1, 2)
select from t where lockb(a)
select (lockit(1))::text collate "C"
--> free
select a from t limit 1
select a from t group by a having a > 1
with recursive q as (select 1 as n union all select n + 1 from q where n < 3) select * from q
select json_value('{}', '$.a' default 5 on empty)
select count(*) from t group by rollup (a)
select (array[1, 2])[1:2]
select a from t order by a fetch first 2 rows with ties
values (1, 2), (3, 4)

--# the look of a text
--> locks
select lockit(1);
 select lockit(1) ;;
SELECT LOCKIT(1)
select/**/lockit(1)
select /* a */ lockit /* b */ ( /* c */ 1 /* d */ ) -- e
select 1 /* /* nested */ ; */ + lockit(1)
select lockit
  (1)
select "lockit"(1)
select U&"lock\0069t"(1)
select U&"lock!0069t" uescape '!' (1)
select "atk"."lockit"(1)
select atk . lockit ( 1 )
select 'a''b', lockit(1)
select E'a\'b', lockit(1)
select $$ -- $$, lockit(1)
select $a$ /* $a$, lockit(1), $a$ */ $a$
select '--', lockit(1)
select '/*', lockit(1), '*/'
select 1 as "/*", lockit(1) as "*/"
select U&'\0027', lockit(1)
select 'x'
  'y', lockit(1)
select lockit(1)::int4
select lockit(+1)
select lockit(x=>1)
select lockit(x:=1)
select lockit(0x1), lockit(0b1), lockit(1_0)
select b'1', lockit(1), x'f'
select '%s', lockit(1)
select 5 % 3, lockit(1)
select ':a', lockit(1)::int
select 1 ; select lockit(1)
select lockit(1); select 1
begin; select lockit(1); commit
-- a comment /* that is none
  select lockit(1)
/* one */ /* two */ select lockit(1)
select 1 where '\' = '\' and lockb(1)
--> free
select 'lockit(1)'
select 1 -- lockit(1)
select 1 /* lockit(1) */
select "lockit" from (select 1 as lockit) q
select $$ select lockit(1) $$
select 1; select 2
select U&'\0027 lockit(1)'

--# COPY, cursors and EXPLAIN
create view atk.v as select atk.lockit(1) as n;
create table atk.t(a int);
insert into atk.t values (1);
--> locks
copy (select lockit(1)) to stdout
copy (select * from v) to stdout with csv
copy (table v) to stdout (format binary)
copy (values (lockit(1))) to stdout (format csv, header)
copy (select n from v order by 1) to stdout
declare c cursor for select lockit(1)
declare c insensitive scroll cursor for select * from v
declare c no scroll cursor without hold for table v
declare c binary cursor for select n from v
begin; declare d cursor for select n from v; fetch d; commit
explain analyze select lockit(1)
explain (analyze true) select * from v
explain (verbose, analyze) select * from t where lockb(a)
explain (analyze, format xml) select lockit(1)
explain (analyze, generic_plan off) select lockit(1)
explain analyze verbose table v
explain (analyze off, analyze on) select lockit(1)
explain (analyze, serialize) select n from v
--> stays
declare h cursor with hold for select 1
declare h scroll cursor with hold for select lockit(1)
--> refused
copy v to stdout
copy t from stdin
--> free
copy t to stdout
copy (select a from t) to stdout
declare c cursor for select a from t
explain (costs off) select a from t
explain (costs off) select lockit(1)

--# built-ins that run SQL as text
create view atk.v as select atk.lockit(1) as n;
create table atk.t(a int);
insert into atk.t values (1);
create view atk.w as select query_to_xml('select * from atk.v', true, false, '') as x;
create view atk.tsv as select to_tsvector('simple', 'a' || atk.lockit(1)) as v;
create function atk.f() returns xml language sql stable as $z$select query_to_xml('select atk.lock' || 'it(1)', true, false, '')$z$;
create function atk.g() returns bigint language plpgsql stable as $z$begin return (select count(*) from ts_stat('select v from atk.tsv')); end$z$;
--> locks
select * from ts_stat('select v from atk.tsv')
select word from ts_stat('select to_tsvector(''simple'', atk.lockit(1)::text)', 'abcd')
select ts_rewrite('a & b'::tsquery, 'select ''a''::tsquery, (''x'' || atk.lockit(1))::tsquery')
select g()
--> unbuilt
select query_to_xml('select atk.lockit(1)', true, false, '')
select query_to_xml('select atk.lock' || 'it(1)', true, false, '')
select query_to_xml_and_xmlschema('select atk.lockit(1)', true, false, '')
select table_to_xml('v', true, false, '')
select table_to_xml('atk.v'::regclass, true, false, '')
select table_to_xml_and_xmlschema('v', true, false, '')
select schema_to_xml('atk', true, false, '')
select schema_to_xml_and_xmlschema('atk', true, false, '')
select length(database_to_xml(true, false, '')::text) > 0
select * from w
select f()
select query_to_xml(q, true, false, '') from (values ('table atk.v')) x(q)
begin; declare c cursor for select n from v; select cursor_to_xml('c', 1, true, false, ''); commit
--> free
select ts_rewrite('a & b'::tsquery, 'a'::tsquery, 'c'::tsquery)

--# snapshots, transaction ids and large objects
create table atk.t(a int);
insert into atk.t values (1);
select lo_from_bytea(424242, 'abc');
--: undo select lo_unlink(424242)
--> held
begin; select pg_advisory_xact_lock_shared(4242)
select pg_advisory_xact_lock(4242)
select pg_try_advisory_xact_lock_shared(4242)
select pg_try_advisory_xact_lock(4242)
--> locks
select pg_advisory_lock(4242)
select pg_advisory_lock(0, 4242)
select pg_try_advisory_lock(4242)
select pg_try_advisory_lock_shared(0, 4242)
select pg_catalog.pg_advisory_lock_shared(4242)
select pg_advisory_lock(a + 4241) from t
select * from pg_try_advisory_lock(4242)
select count(pg_advisory_lock_shared(4242)) from t
--> refused
select txid_current()
select pg_current_xact_id()
select pg_notify('a', 'b')
notify a
listen a
select lo_create(1)
select lo_creat(-1)
select lo_unlink(424242)
select lo_put(424242, 0, 'x')
select pg_current_wal_lsn()
select pg_switch_wal()
select pg_logical_emit_message(false, 'a', 'b')
select * from t for update
select * from t for key share
with q as (insert into t values (2) returning a) select * from q
insert into t values (1)
update pg_settings set setting = 'x' where name = 'atk.mark'
select a into z from t
create temp table z(a int)
lock table t in share mode
select pg_create_restore_point('x')
merge into t using t s on s.a = t.a when matched then delete

--# prepared transactions
commit;
begin;
select pg_current_xact_id();
prepare transaction 'atk';
create view atk.v as select gid from pg_prepared_xacts;
create function atk.f() returns bigint language sql stable as 'select count(*) from pg_prepared_xacts';
create function atk.g() returns bigint language plpgsql stable as $z$begin return (select count(*) from pg_prepared_xact()); end$z$;
--: undo rollback prepared 'atk'
--> differs
select gid from pg_prepared_xacts
select count(*) from pg_catalog.pg_prepared_xacts
select gid from pg_prepared_xact()
select * from v
select f()
select g()
table v

--# statistics that are reset
create function atk.f() returns void language sql stable as 'select pg_stat_reset()';
create view atk.v as select pg_stat_reset_shared('wal') is null as x;
--> resets
select pg_stat_reset()
select pg_stat_reset_shared('bgwriter')
select pg_stat_reset_shared('io')
select pg_stat_reset_slru('notify')
select f()
select * from v
select pg_stat_reset_shared()

--# state of the session
create view atk.v as select set_config('atk.mark', 'x', false) as s;
create function atk.f1() returns text language sql stable as $z$select set_config('atk.mark', 'x', false)$z$;
create function atk.f2() returns text language plpgsql stable as $z$begin return set_config('atk.' || 'mark', 'x', false); end$z$;
create function atk.f3() returns int language plpgsql as $z$begin set atk.mark = 'x'; return 1; end$z$;
create function atk.f4() returns int language plpgsql as $z$begin set session atk.mark to 'x'; return 1; end$z$;
create function atk.f5() returns int language sql as $z$set atk.mark = 'x'; select 1$z$;
create function atk.f6() returns int language plpgsql as $z$begin execute 'prepare p as select 1'; return 1; end$z$;
create function atk.f7() returns int language plpgsql immutable as $z$begin perform setseed(0.5); return 1; end$z$;
create function atk.f8(x text default set_config('atk.mark', 'x', false)) returns text language sql stable as 'select x';
create function atk.f9() returns text language sql stable set atk.mark = 'y' as $z$select current_setting('atk.mark')$z$;
create function atk.f10() returns text language plpgsql stable as $z$begin return pg_catalog . set_config('atk.mark', 'x', false); end$z$;
create domain atk.sdom as text check (set_config('atk.mark', value, false) is not null);
create table atk.t(a int);
insert into atk.t values (1);
create view atk.seed as select setseed(0.5) is null as x;
create function atk.cfg(text, text) returns text language sql stable as 'select set_config($1, $2, false)';
--> stays
select set_config('atk.mark', 'x', false)
select pg_catalog.set_config('atk.mark', 'x', false)
select set_config('atk.' || 'mark', 'x', false)
select set_config('atk.mark', a::text, false) from t
select a from t where set_config('atk.mark', 'x', false) = 'x'
select * from set_config('atk.mark', 'x', false)
select count(set_config('atk.mark', 'x', false)) from t
select * from v
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f10()
select 'x'::sdom
select cfg('atk.mark', 'x')
set atk.mark = 'x'
set session atk.mark to 'x'
select 1; set atk.mark = 'x'
set atk.mark = 'x'; select 1
select setseed(0.5)
select * from seed
select a from t where setseed(0.5) is not null
with q as materialized (select setseed(0.5)) select * from q
prepare p as select 1
prepare p (int) as select $1
explain (analyze) select set_config('atk.mark', 'x', false)
copy (select set_config('atk.mark', 'x', false)) to stdout
do $z$begin set atk.mark = 'x'; end$z$
do $z$begin perform set_config('atk.mark', 'x', false); end$z$
--> free
select f9()
select current_setting('server_version_num')
select a from t
show server_version_num

--# chain: view, function, default, domain, operator
create type atk.ct as (x int);
create function atk.loweq(a atk.ct, b atk.ct) returns bool language plpgsql volatile as
  $z$begin perform pg_advisory_lock_shared(4242); return a.x operator(pg_catalog.=) b.x; end$z$;
create operator atk.=== (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create function atk.chk(int) returns bool language sql immutable as 'select row($1)::atk.ct operator(atk.===) row($1)::atk.ct';
create domain atk.d as int check (atk.chk(value));
create function atk.f(a atk.d default 1) returns int language sql stable as 'select a::int';
create view atk.v as select atk.f() as n;
create view atk.w as select n from atk.v;
create function atk.g() returns bigint language plpgsql stable as $z$declare n bigint; begin select count(*) into n from atk.w where w.n > 0; return n; end$z$;
create view atk.x as select atk.g() as n;
create function atk.h(bigint default atk.g()) returns bigint language sql stable return $1;
create view atk.ok as select 1 as n;
create function atk.okg() returns bigint language plpgsql stable as $z$begin return (select count(*) from atk.ok); end$z$;
--> locks
select 1::d
select f()
select * from v
select * from w
select g()
select * from x
select h()
select * from x where n = h()
select n from w natural join (select 1 as n) q
--> free
select okg()
select row(1)::ct
select h(1) from (select 1) q(h)

--# chain: aggregate, cast, enum, json, policy
--: role reader
create type atk.e as enum ('a');
create function atk.chk(text) returns bool language sql stable as $z$select atk.lockb(1)$z$;
create domain atk.d as text check (atk.chk(value));
create function atk.e2j(atk.e) returns json language sql stable as $z$select to_json('x'::atk.d::text)$z$;
create cast (atk.e as json) with function atk.e2j(atk.e);
create function atk.sf(s text, v atk.e) returns text language sql stable as $z$select coalesce(s, '') || to_json(v)::text$z$;
create aggregate atk.agg(atk.e) (sfunc = atk.sf, stype = text);
create table atk.t(e atk.e);
insert into atk.t values ('a');
create function atk.any_() returns bool language plpgsql stable security definer as $z$begin return (select agg(e) from t) is not null; end$z$;
create table atk.u(a int);
insert into atk.u values (1);
alter table atk.u enable row level security;
create policy p on atk.u using (atk.any_());
create view atk.v with (security_invoker) as select * from atk.u;
create function atk.f() returns bigint language sql stable begin atomic select count(*) from atk.v; end;
grant select on all tables in schema atk to reader;
--> locks
select agg(e) from t
select agg(e) over () from t
select any_()
select * from u
select * from v
select f()
select to_jsonb(t) from t
--> free
select e from t
select count(e) from t

--# chain: index expression, cast, range, function
create type atk.ct as (x int);
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create function atk.lt(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x < ($2).x$z$;
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.lt);
create operator class atk.cto for type atk.ct using btree as operator 1 atk.<, function 1 atk.cmp(atk.ct,atk.ct);
create type atk.r as range (subtype = atk.ct, subtype_opclass = atk.cto);
create function atk.k(int) returns int language sql immutable as $z$select case when isempty(atk.r(row(1)::atk.ct, row(2)::atk.ct)) then 1 else $1 end$z$;
create table atk.t(a int, b int);
create index on atk.t ((a + atk.k(1)));
create view atk.v as select b from atk.t;
create function atk.f() returns bigint language plpgsql stable as $z$declare n bigint := 0; x record; begin for x in select * from v loop n := n + 1; end loop; return n; end$z$;
create function atk.g(text default atk.f()::text) returns text language sql stable return $1;
--> locks
select k(1)
select * from t
select * from v
select f()
select g()
select * from generate_series(1, f() + 1)
--> free
select g('x')

--# chain: operator class, materialized view, view, rows
create type atk.ct as (x int);
create function atk.chk(int) returns int language plpgsql stable as $z$begin perform from ts_stat('select to_tsvector(''simple'', atk.lock' || 'it(1)::text)'); return $1; end$z$;
create function atk.cmp(a atk.ct, b atk.ct) returns int language sql immutable as $z$select atk.chk(($1).x - ($2).x)$z$;
create function atk.lt(atk.ct,atk.ct) returns bool language sql immutable as $z$select ($1).x < ($2).x$z$;
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.lt);
create operator class atk.cto default for type atk.ct using btree as operator 1 atk.<, function 1 atk.cmp(atk.ct,atk.ct);
create type atk.wrap as (c atk.ct, n int);
create domain atk.dw as atk.wrap;
create table atk.t(w atk.dw, ws atk.wrap[]);
insert into atk.t values (row(row(1), 1), array[row(row(1), 1)::atk.wrap]), (row(row(2), 1), array[row(row(2), 1)::atk.wrap]);
create materialized view atk.mv as select w, ws from atk.t;
create view atk.v as select w from atk.mv;
create function atk.f() returns setof atk.t language sql stable as 'select * from atk.t';
--> locks
select w from v order by w
select * from mv order by ws
select * from f() order by 2
select * from f() x order by x
select max(w::wrap) from t
select rank() over (order by ws) from mv
select array_agg(w order by w) from t
select w from t order by 1 limit 1
select ws < ws from t
select array[w] <= array[w] from t
select row(w) < row(w) from t x(w, z), lateral (select 1) q
select t < t from t
select greatest(w, w) from t
--> free
select w from t
select ws from mv
select (w).n from v

--# whole rows compared
create type atk.ct as (x int);
create function atk.eq(a atk.ct, b atk.ct) returns bool language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x = b.x; end$z$;
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 3 =, function 1 atk.cmp(atk.ct,atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1), (row(1), 1);
create table atk.u(t atk.t, k int);
insert into atk.u select t, 1 from atk.t;
create function atk.rec() returns record language sql stable as 'select a, n from atk.t limit 1';
create function atk.setrec() returns setof record language sql stable as 'select a, n from atk.t';
create function atk.one() returns atk.t language sql stable as 'select * from atk.t limit 1';
create view atk.v as select t as r from atk.t;
create table atk.okt(a int, b text);
insert into atk.okt values (1, 'x'), (1, 'x');
--> locks
select distinct t from t
select distinct * from t
select t = t from t
select t from t order by t
select t from t union select t from t
select t from t intersect select t from t
select count(distinct t) from t
select count(*) from t group by t
select rec() = rec()
select one() = one()
select one() < one()
select one() is distinct from one()
select one() in (select t from t)
select x = y from setrec() x(a ct, n int), setrec() y(a ct, n int)
select distinct r from v
select distinct t from u
select * from u natural join u y
select array_agg(t) = array_agg(t) from t
select array_agg(distinct t) from t
select u.k from u join t x on u.t = x
select jsonb_agg(distinct t) from t
select array(select t from t) = array(select t from t)
select row(t, 1) = row(t, 1) from t
select (t.*) = (t.*) from t
select row(t.*) = row(t.*) from t
select (t, 1) = (t, 1) from t
select case t when t then 1 end from t
select nullif(t, t) from t
select t between t and t from t
select max(t) from t
select min(t) from t
select rank() over (order by t) from t
select row_number() over (partition by t) from t
select mode() within group (order by t) from t
select array_position(array_agg(t), (select t from t limit 1)) from t
with recursive q as (select t, 1 as n from t union all select t, n + 1 from q where n < 3) cycle t set c using p select n from q
select count(*) from t group by grouping sets ((t), ())
select t in (t, t) from t
select t = any (array[t]) from t
select record_eq(t, t) from t
select array_eq(array[t], array[t]) from t
select btrecordcmp(t, t) from t
select 1 from t x join t y on x = y
--> free
select t from t
select n from t
select count(t) from t
select to_jsonb(t) from t
select array_agg(t) from t
select distinct okt from okt
select okt = okt from okt
select count(*) from okt group by okt
select t *= t from t

--# a variable of a domain that nobody assigns : d
create function atk.f1() returns int language plpgsql stable as $z$declare v d; begin return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$begin declare v atk.d; w int; begin w := 2; return w; end; end$z$;
create type atk.c as (a atk.d);
create function atk.f3() returns int language plpgsql stable as $z$declare v atk.c; begin return 1; end$z$;
create function atk.f4(out x atk.d) language plpgsql stable as $z$begin return; end$z$;
create function atk.f5() returns table(x atk.d) language plpgsql stable as $z$begin return next; end$z$;
create function atk.ok(out x int) language plpgsql stable as $z$begin return; end$z$;
--> locks
select f1()
select f2()
--> free
select ok()

--# domain that was changed later
create domain atk.d as int;
create domain atk.e as int check (value > 0);
create domain atk.n as int;
create view atk.v as select 1::atk.d as n;
create function atk.f(x int) returns atk.e language sql stable as 'select x';
alter domain atk.d add constraint c check (atk.lockb(value)) not valid;
alter domain atk.e add constraint c2 check (atk.lockb(value));
alter domain atk.e add constraint c3 check (value < 100);
--> locks
select 1::d
select '1'::d
select n from v
select f(1)
select 5::e
select '{5}'::e[]
--> free
select 1::n

--# domain over domain over array of composite
create domain atk.a1 as int check (atk.lockb(value));
create domain atk.a2 as atk.a1 check (value > 0);
create type atk.c as (x atk.a2[], y int);
create domain atk.a3 as atk.c[];
create type atk.c2 as (z atk.a3);
create table atk.t(w atk.c2, k int);
insert into atk.t values (null, 1);
create view atk.v as select '("{\"({1},2)\"}")'::text as s;
--> locks
select s::c2 from v
select '{"({1},2)"}'::a3
select row('{"({1},2)"}')::c2
select jsonb_populate_record(null::t, '{"w": {"z": [{"x": [1]}]}}')
select array['({1},2)'::c]::a3
select pg_input_is_valid('{"({1},2)"}', 'a3')
select '("(""{\\""({1},2)\\""}"")",1)'::t
--> free
select w from t
select s from v

--# text becomes a type by its input function : d
create type atk.c as (a atk.d);
create table atk.t(s text, v varchar, j jsonb, ok text);
insert into atk.t values ('1', '(1)', '{"a":1}', '7');
create function atk.f(atk.c) returns int language sql immutable as 'select ($1).a';
create cast (text as atk.c) with inout as implicit;
--> locks
select s::d from t
select v::text::c from t
select cast(v as c) from t
select s::int::d from t
select (s || '')::d from t
select ('{' || s || '}')::d[] from t
select f(v::text) from t
select (j ->> 'a')::d from t
select (j -> 'a')::int::d from t
select s::d::text from t
--> free
select s::int from t
select ok::bigint from t
select v from t

--# domains in aggregates and operators : d
create function atk.sf(s int, v atk.d) returns int language sql immutable as 'select v::int';
create function atk.sf2(s atk.d, v int) returns atk.d language sql immutable as 'select v';
create aggregate atk.a1(atk.d) (sfunc = atk.sf, stype = int);
create aggregate atk.a2(int) (sfunc = atk.sf2, stype = atk.d, initcond = '0');
create function atk.ff(s int) returns atk.d language plpgsql immutable as $z$begin return s; end$z$;
create aggregate atk.a3(int) (sfunc = int4pl, stype = int, finalfunc = atk.ff, initcond = '0');
create function atk.plus(a atk.d, b atk.d) returns int language plpgsql immutable as $z$begin return 1; end$z$;
create operator atk.%%% (leftarg = atk.d, rightarg = atk.d, function = atk.plus);
create aggregate atk.oka(int) (sfunc = int4pl, stype = int, initcond = '0');
create function atk.minus(a int, b int) returns int language plpgsql as $z$begin return a - b; end$z$;
create operator atk.<<->> (leftarg = int, rightarg = int, function = atk.minus);
--> locks
select a1(g) from generate_series(1, 3) g
select a1(g) over () from generate_series(1, 3) g
select a2(g) from generate_series(1, 3) g
select a3(g) from generate_series(1, 3) g
select 1 %%% 2
select 1 operator(atk.%%%) 2
select g %%% g from generate_series(1, 3) g
--> free
select oka(g) from generate_series(1, 3) g
select 5 <<->> 3

--# names in two schemas
--: undo drop schema if exists evil cascade
create schema evil;
create function evil.helper(int) returns int language plpgsql stable as $z$begin return atk.lockit($1); end$z$;
create function atk.helper(int) returns int language plpgsql stable as $z$begin return $1; end$z$;
create view evil.v as select atk.lockit(1) as n;
create view atk.v as select 1 as n;
create domain evil.d as int check (atk.lockb(value));
create domain atk.d as int check (value > 0);
create function atk.f() returns int language plpgsql stable set search_path = evil as $z$begin return helper(1); end$z$;
create function atk.g() returns int language sql stable set search_path = evil, atk as $z$select n from v$z$;
create function atk.h() returns int language plpgsql stable set search_path = evil as $z$declare x d := 1; begin return x; end$z$;
create function atk.ok() returns int language plpgsql stable set search_path = atk as $z$declare x d := 1; begin return helper(x); end$z$;
--> locks
select evil.helper(1)
select * from evil.v
select 1::evil.d
select f()
select g()
select h()
select n from evil.v natural join v
select helper(1) + evil.helper(1)
--> free
select helper(1)
select * from v
select 1::d
select ok()
select atk.helper(2)

--# overloads chosen by types
create function atk.f(int) returns int language sql stable as 'select 1';
create function atk.f(text) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.f(bool, int) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.f(int, int) returns int language sql stable as 'select 2';
create function atk.g(anyelement) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.g(int) returns int language sql stable as 'select 1';
create function atk.h(int[]) returns int language sql stable as 'select 1';
create function atk.h(anyarray) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.numeric_(float8) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.numeric_(int) returns int language sql stable as 'select 1';
--> locks
select f('x'::text)
select f('x')
select f(null)
select f(true, 1)
select g('x'::text)
select g(1.5)
select h(array['x'])
select numeric_(1.5)
select f('a'::varchar)
select f('1')
select numeric_('1')
--> free
select f(1)
select f(1, 2)
select g(1)
select h(array[1])
select numeric_(1)

--# functional notation of records, parents and views
create table atk.p(a int);
create table atk.k(b int) inherits (atk.p);
insert into atk.k values (1, 2);
create view atk.v as select 1 as z;
create type atk.ct as (x int);
create domain atk.dct as atk.ct;
create table atk.t(d atk.dct);
insert into atk.t values (row(1));
create function atk.fp(atk.p) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.fv(atk.v) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.fc(atk.ct) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.fr(record) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.fa(anyelement) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.okp(atk.p) returns int language plpgsql stable as $z$begin return $1.a; end$z$;
--> locks
select k.fp from k
select (k).fp from k
select p.fp from p
select v.fv from v
select (v).fv from v
select (d).fc from t
select (t.d).fc from t
select q.fr from (select 1 as a) q
select q.fa from (select 1 as a) q
select t.fr from t
select k.fa from k
select (row(1, 2)).fr
with q as (select 1 as a) select q.fr from q
select x.fr from (values (1)) x
select count(q.fr) from (select 1 as a) q
select x.fr from generate_series(1, 2) g, lateral (select g) x
--> free
select k.okp from k
select p.okp from p
select q.a from (select 1 as a) q

--# relations that hide the server's own
--: path atk, pg_catalog
create view atk.pg_class as select atk.lockit(1) as oid;
create table atk.pg_prepared_xacts(gid text);
create view atk.pg_roles as select 1 as n;
--> locks
select * from pg_class
select oid from atk.pg_class
select count(oid) from pg_class
--> free
select count(*) > 0 from pg_catalog.pg_class
select gid from atk.pg_prepared_xacts
select n from atk.pg_roles

--# relations that the server's own hide
create view atk.pg_class as select atk.lockit(1) as oid;
create domain atk.int4 as int check (atk.lockb(value));
create function atk.lower(text) returns text language plpgsql stable as $z$begin return atk.lockit(1); end$z$;
create function atk.cat_(text, text) returns text language plpgsql stable as $z$begin return atk.lockit(1); end$z$;
create operator atk.|| (leftarg = text, rightarg = text, function = atk.cat_);
--> locks
select * from atk.pg_class
select 1::atk.int4
select atk.lower('X')
select 'a'::text operator(atk.||) 'b'
--> free
select count(*) > 0 from pg_class
select 1::int4
select lower('X')
select 'a'::text || 'b'

--# types that hide the server's own
--: path atk, pg_catalog
create domain atk.int4 as pg_catalog.int4 check (atk.lockb(value));
create domain atk.text as pg_catalog.text check (atk.lockb(1));
create domain atk."int" as pg_catalog.int4 check (atk.lockb(1));
create domain atk.date as pg_catalog.date check (atk.lockb(1));
--> locks
select 1::int4
select 'x'::text
select text 'x'
select 1::"int"
select date '2020-01-01'
select '{1}'::int4[]
select '{x}'::_text
select cast(1 as int4)
select * from json_to_record('{"a":1}') as x(a int4)
--> free
select 1::int
select 1::integer
select 'x'::varchar
select 1::pg_catalog.int4
select '2020-01-01'::timestamp

--# forms that always mean the server's own functions
--: path atk, pg_catalog
create function atk.extract(text, date) returns numeric language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.substring(text, int, int) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.position(text, text) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.timezone(text, timestamp) returns timestamptz language plpgsql stable as $z$begin perform lockit(1); return now(); end$z$;
create function atk.btrim(text) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.overlay(text, text, int) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.like_escape(text, text) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk."overlaps"(date, date, date, date) returns bool language plpgsql stable as $z$begin return lockb(1); end$z$;
--> locks
select "extract"('year', date '2020-01-01')
select "substring"('abc'::text, 1, 2)
select "position"('a'::text, 'b'::text)
select timezone('utc', timestamp '2020-01-01')
select btrim(' a ')
select "overlay"('a'::text, 'b'::text, 1)
select like_escape('a', 'b')
select atk.substring('abc', 1, 2)
--> free
select extract(year from date '2020-01-01')
select substring('abc' from 1 for 2)
select position('a' in 'b')
select timestamp '2020-01-01' at time zone 'utc'
select trim(' a ')
select overlay('a' placing 'b' from 1)
select 'a' like 'b' escape 'c'
select (date '2020-01-01', date '2020-01-02') overlaps (date '2020-01-01', date '2020-01-03')

--# words that are operators
--: path atk, pg_catalog
create function atk.lowt(a text, b text) returns bool language plpgsql stable as $z$begin return lockb(1); end$z$;
create operator atk.~~ (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.!~~ (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.~~* (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.!~~* (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.~ (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.!~ (leftarg = text, rightarg = text, function = atk.lowt);
create operator atk.<> (leftarg = text, rightarg = text, function = atk.lowt);
create table atk.t(a text, n int);
insert into atk.t values ('x', 1);
--> locks
select a like 'x' from t
select a not like 'x' from t
select a ilike 'x' from t
select a not ilike 'x' from t
select a similar to 'x' from t
select a not similar to 'x' from t
select a like any (array['x']) from t
select a not like all (array['x', 'y']) from t
select a like 'x' escape '\' from t
select a <> 'x' from t
select a != 'x' from t
select a not in ('x', 'y') from t
select a <> all (array['x']) from t
select a like any (select a from t) from t
--> free
select a = 'x' from t
select a in ('x', 'y') from t
select n <> 2 from t
select n not in (2, 3) from t
select a is distinct from 'x' from t

--# names of CTEs
create view atk.v as select atk.lockit(1) as n;
create sequence atk.s;
select nextval('atk.s');
--> locks
with v as (select * from v) select * from v
with q as (with v as (select 1 as n) select * from v) select * from v
with v as (select 1 as n) select * from atk.v
select * from (with v as (select 1 as n) select * from v) x, v
with w as (select * from v), v as (select 1 as n) select * from w
with v as (select 1 as n) select (select n from atk.v) from v
(with v as (select 1 as n) select * from v) union all select * from v
with v as (select 1 as n) select * from v union all select n from atk.v
with recursive q as (select n from v union all select n + 1 from q where n < 2) select * from q
--> differs
with s as (select last_value from s) select * from s
with q as (with s as (select 1) select * from s) select last_value from s
with s as (select 1 as last_value) select last_value from atk.s
--> free
with v as (select 1 as n) select * from v
with s as (select 1 as last_value) select last_value from s
with recursive v as (select 1 as n union all select n + 1 from v where n < 2) select * from v
with v as (select 1 as n) select (select n from v), (with w as (select n from v) select n from w)
with v as (select 1 as n), w as (select n from v) select * from w

--# aliases that are called as something unsafe
create table atk.t(a int, nextval int);
insert into atk.t values (1, 2);
create view atk.v as select atk.lockit(1) as n;
--> locks
select lockit from lockit(1)
select lockit.lockit from lockit(1) as lockit
select x from lockit(1) as x
select (select v from v)
select lockit.x from lockit(1) as lockit(x)
--> free
select lockit from (select 1 as lockit) q
select lockit.a from t lockit
select v.a from t as v
select t.nextval from t
select nextval from t
select pg_notify from t as q(pg_notify, z)
select a as lockit from t
select a as set_config from t order by set_config
select lockb.* from t lockb
with lockit as (select 1 as a) select a from lockit

--# descriptions of what is unsafe
create sequence atk.s;
create table atk.t(id serial primary key, b int default atk.lockit(1), c int generated always as identity);
insert into atk.t(b) values (5);
create view atk.v as select atk.lockit(1) as n;
create domain atk.d as int default atk.lockit(7) check (atk.lockb(value));
--> differs
select last_value from t_id_seq
select last_value, is_called, log_cnt from t_c_seq
--> refused
select currval(pg_get_serial_sequence('t', 'id'))
select nextval('t_id_seq'::regclass)
--> free
select max(id) from t
select pg_get_serial_sequence('t', 'id')
select pg_get_viewdef('atk.v'::regclass)
select 'atk.lockit(int)'::regprocedure
select 'atk.s'::regclass::text
select to_regclass('s')::text
select proname, prosrc from pg_proc where proname = 'lockit'
select has_function_privilege('atk.lockit(int)', 'execute')
select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = 'atk.t'::regclass order by 1
select pg_get_functiondef('atk.lockit(int)'::regprocedure)
select to_regtype('atk.d')::text
select format_type('atk.d'::regtype, -1)
select sequence_name, start_value from information_schema.sequences where sequence_schema = 'atk' order by 1
select column_default from information_schema.columns where table_schema = 'atk' and table_name = 't' order by 1
select tableoid::regclass::text from t
select nullif(pg_typeof(null::d)::text, 'x') is not null from t where false

--# what only writers run
create function atk.tr() returns trigger language plpgsql as $z$begin perform lockit(1); return new; end$z$;
create table atk.t(a int check (atk.lockb(a)), b int default atk.lockit(1), c text);
create trigger tr before insert or update on atk.t for each row execute function atk.tr();
insert into atk.t values (1, 2, 'x');
create rule r as on insert to atk.t do also select atk.lockit(1);
create rule u as on update to atk.t do instead nothing;
create table atk.fk(a int primary key);
create table atk.fk2(a int references atk.fk);
create view atk.v as select a, b from atk.t with local check option;
alter view atk.v alter column b set default atk.lockit(1);
create function atk.it() returns trigger language plpgsql as $z$begin perform lockit(1); return new; end$z$;
create trigger it instead of insert on atk.v for each row execute function atk.it();
--> refused
insert into v values (1, 2)
delete from t
--> free
select * from t
select count(*) from t where b = 2
select * from v
select * from fk2 join fk using (a)

--# functions that call each other
create function atk.a(int) returns int language plpgsql stable as $z$begin if $1 = 0 then return 0; end if; return b($1 - 1); end$z$;
create function atk.b(int) returns int language plpgsql stable as $z$begin if $1 = 0 then return c(1); end if; return a($1 - 1); end$z$;
create function atk.c(int) returns int language sql stable as $z$select atk.lockit($1)$z$;
create function atk.oka(int) returns int language plpgsql stable as $z$begin if $1 = 0 then return 0; end if; return okb($1 - 1); end$z$;
create function atk.okb(int) returns int language plpgsql stable as $z$begin if $1 = 0 then return 1; end if; return oka($1 - 1); end$z$;
create function atk.fact(int) returns int language plpgsql as $z$begin return case when $1 < 2 then 1 else $1 * fact($1 - 1) end; end$z$;
--> locks
select a(1)
select b(0)
select a(3)
select * from a(1)
--> free
select oka(3)
select okb(2)
select fact(5)

--# prepared texts and several statements
create view atk.v as select atk.lockit(1) as n;
--> locks
prepare p as select lockit(1); execute p
prepare p(int) as select lockit($1); execute p(5)
prepare p as select * from v; execute p; deallocate p
select 1; select n from v; select 2
select 1; table v
begin; select * from v; rollback
begin read only; select n from v; commit
select 1; prepare p as table v; execute p; deallocate all
set local atk.mark = 'x'; select n from v
start transaction isolation level repeatable read; select n from v; commit
begin; savepoint s; select n from v; rollback to s; commit
show server_version; select n from v
copy (select 1) to stdout; select n from v
explain select 1; select n from v
--> free
select 1; select 2
show server_version; select 1

--# volatile by default and only computing
create function atk.f1(a int, b int) returns int language sql as 'select a + b';
create function atk.f2(a text) returns text language plpgsql as $z$begin return upper(a) || '!'; end$z$;
create function atk.f3(a int) returns setof int language plpgsql as $z$begin for i in 1..a loop return next i; end loop; end$z$;
create function atk.f4(a jsonb) returns int language plpgsql as $z$declare k text; n int := 0; begin for k in select jsonb_object_keys(a) loop n := n + length(k); end loop; return n; end$z$;
create function atk.f5(a int[]) returns int language sql as 'select sum(x)::int from unnest(a) x';
create function atk.f6(a date) returns date language sql return a + 1;
create function atk.f7(a int default 3) returns int language sql begin atomic select a * 2; end;
create function atk.f8(a int, out b int, out c text) language plpgsql as $z$begin b := a; c := a::text; end$z$;
create table atk.t(a int, b text);
insert into atk.t values (1, 'x'), (2, 'y');
create function atk.f9() returns bigint language plpgsql as $z$begin return (select count(*) from t where a > 0); end$z$;
create function atk.f10(k int) returns text language sql as 'select b from atk.t where a = k';
create function atk.f11() returns setof atk.t language plpgsql as $z$begin return query select * from t order by a; end$z$;
create function atk.bad(a int) returns int language sql as 'select atk.lockit(a)';
create function atk.bad2() returns bigint language plpgsql as $z$begin return (select count(bad(a)) from t); end$z$;
create view atk.v as select atk.f1(a, 1) as n, atk.f2(b) as u from atk.t;
--> locks
select bad(1)
select bad2()
select f1(bad(1), 2)
--> free
select f1(1, 2)
select f2('x')
select * from f3(3)
select f4('{"a": 1, "bc": 2}')
select f5(array[1, 2])
select f6('2020-01-01')
select f7()
select * from f8(1)
select f9()
select f10(1)
select * from f11()
select * from v
select f1(a, f1(1, 2)) from t where f2(b) = 'X!'

--# partitions three levels deep : li
create table atk.t(a int, b int, c int) partition by list (c);
create table atk.t1 partition of atk.t for values in (1) partition by range (b);
create table atk.t11 partition of atk.t1 for values from (0) to (100) partition by range ((a + atk.li(1)));
create table atk.t111 partition of atk.t11 for values from (0) to (100);
create table atk.okt(a int, b int) partition by list (b);
create table atk.okt1 partition of atk.okt for values in (1) partition by range (a);
create table atk.okt11 partition of atk.okt1 for values from (0) to (100);
insert into atk.okt values (1, 1);
--> locks
select * from t
select count(*) from t where c = 1
select * from t1
select * from t11 where a = 1
select * from t where a = (select 1)
select x.a from t x join okt y using (a)
--> free
select * from okt where a = 1
select * from t where c = 2
select count(*) from okt1

--# inheritance three levels deep : li
create table atk.p(a int);
create table atk.k() inherits (atk.p);
create table atk.g(check (a > atk.li(0))) inherits (atk.k);
create table atk.other(b int);
create table atk.both_() inherits (atk.p, atk.other);
create view atk.v as select p.a from atk.p;
--> locks
select * from p where a = 5
select * from k where a = 5
select * from v where a = 5
select a from only other, p where a = 1
select (select count(*) from p where a = 7)
--> free
select * from only p where a = 5
select * from other where b = 1
select * from both_

--# check constraints in a union : li
create table atk.solo(a int check (a > atk.li(0)), b int);
create table atk.okt(a int check (a > 0), b int);
create view atk.v as select a from atk.solo union all select a from atk.okt;
create function atk.f() returns setof int language sql stable as 'select a from atk.v where a = 3';
--> locks
select * from (select * from solo union all select * from okt) q where a = 5
select a from v where a = 5
select * from f()
select * from (select a from okt union all select a from v) q where a < 7
--> free
select * from (select * from okt union all select * from okt) q where a = 5
select * from okt where a = 5

--# indexes over operators and casts
create function atk.li(a int, b int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a + b; end$z$;
create operator atk.<+> (leftarg = int, rightarg = int, function = atk.li);
create table atk.t(a int, b int);
insert into atk.t select g, g from generate_series(1, 50) g;
create index on atk.t ((a <+> (1 <+> 2)));
create domain atk.d as int check ((value <+> 1) > 0);
create table atk.u(a int, b int);
create index on atk.u (a) where b > (1 <+> 2);
create table atk.w(a int, b int);
insert into atk.w select g, g from generate_series(1, 50) g;
create statistics atk.st on (a + (1 <+> 1)), b from atk.w;
analyze atk.w;
create table atk.p(a int) partition by range ((a + (1 <+> 1)));
create table atk.p1 partition of atk.p for values from (0) to (100);
create table atk.okt(a int, b int);
create index on atk.okt ((a + (1 + 2)));
create table atk.z(a int);
create index on atk.z ((a + 5::atk.d::int));
--> locks
select * from t where a = 5
select * from u
select * from w where a = 5
select * from p
select count(*) from t
explain select * from t
select 5::d
--> free
select * from okt where a = 5

--# policies over operators, casts and domains
--: role reader
create function atk.lowop(a int, b int) returns bool language plpgsql stable as $z$begin return atk.lockb(1); end$z$;
create operator atk.=~ (leftarg = int, rightarg = int, function = atk.lowop);
create domain atk.d as int check (atk.lockb(value));
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bool language plpgsql stable as $z$begin return atk.lockb(1); end$z$;
create cast (atk.ct as bool) with function atk.c2b(atk.ct) as implicit;
create function atk.df(a int default atk.lockit(1)) returns int language sql stable as 'select a';
create view atk.v as select atk.lockit(1) as n;
create table atk.t1(a int);
create table atk.t2(a int);
create table atk.t3(a atk.ct);
create table atk.t4(a int);
create table atk.t5(a int);
create table atk.t6(a int);
insert into atk.t1 values (1);
insert into atk.t2 values (1);
insert into atk.t3 values (row(1));
insert into atk.t4 values (1);
insert into atk.t5 values (1);
insert into atk.t6 values (1);
alter table atk.t1 enable row level security;
alter table atk.t2 enable row level security;
alter table atk.t3 enable row level security;
alter table atk.t4 enable row level security;
alter table atk.t5 enable row level security;
create policy p on atk.t1 using (a operator(atk.=~) 1);
create policy p on atk.t2 using (a::atk.d > 0);
create policy p on atk.t3 using (a);
create policy p on atk.t4 using (a = atk.df());
create policy p on atk.t5 using (a in (select n from atk.v));
create policy p on atk.t6 using (atk.lockb(a));
create table atk.t7(a int);
insert into atk.t7 values (1);
alter table atk.t7 enable row level security;
create policy p on atk.t7 to postgres using (atk.lockb(a));
create policy q on atk.t7 to reader using (a = 1);
grant select on all tables in schema atk to reader;
--> locks
select * from t1
select * from t2
select * from t3
select * from t4
select * from t5
select count(*) from t1 natural join t2
--> free
select * from t6
select * from t7

--# policies as the superuser meets them
create table atk.t(a int);
insert into atk.t values (1);
alter table atk.t enable row level security;
create policy p on atk.t using (atk.lockb(a));
create role asker;
grant usage on schema atk to asker;
grant select on atk.t to asker;
create view atk.v with (security_invoker = false) as select * from atk.t;
create view atk.w as select * from atk.t;
alter view atk.w owner to asker;
--: undo drop role asker
--> locks
select * from w
select count(*) from w where a = 1

--# set-returning defaults, row types and records
create type atk.ct as (x int, y text);
create function atk.f(a atk.ct default row(atk.lockit(1), 'x')) returns int language sql stable as 'select ($1).x';
create function atk.g(a int[] default array[atk.lockit(1)]) returns int language sql stable as 'select $1[1]';
create function atk.h(a json default json_build_object('a', atk.lockit(1))) returns text language sql stable as $z$select $1 ->> 'a'$z$;
create function atk.i(a int, b int default 2, c int default atk.lockit(3)) returns int language sql stable as 'select a + b + c';
create procedure atk.p(a int default atk.lockit(1)) language sql as 'select a';
create function atk.k(a int, b text default 'atk.lockit(1)') returns text language sql stable as 'select b';
create function atk.l(a int default 1, b int default case when true then 5 else atk.lockit(1) end) returns int language sql stable as 'select a';
--> locks
select f()
select g()
select h()
select i(1)
select i(1, 5)
select i(b => 1, a => 2)
call p()
select i(a => g(), c => 3)
--> free
select f(row(1, 'x'))
select i(1, 2, 3)
select i(a => 1, c => 3)
select k(1)
select g(array[1])

--# types reached by the result of a function
create type atk.ct as (x int);
create function atk.eq(a atk.ct, b atk.ct) returns bool language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x = b.x; end$z$;
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 3 =, function 1 atk.cmp(atk.ct,atk.ct);
create function atk.f(int) returns atk.ct language sql immutable as 'select row($1)::atk.ct';
create function atk.fs() returns setof atk.ct language sql stable as 'values (row(1)::atk.ct), (row(2)::atk.ct)';
create function atk.fa() returns atk.ct[] language sql stable as 'select array[row(1)::atk.ct]';
create function atk.ft() returns table(c atk.ct, n int) language sql stable as 'values (row(1)::atk.ct, 1), (row(2)::atk.ct, 2)';
create function atk.fj() returns record language sql stable as 'select row(1)::atk.ct, 1';
create function atk.fo(out c atk.ct, out n int) language sql stable as 'select row(1)::atk.ct, 1';
create view atk.v as select atk.f(g) as c, g as n from generate_series(1, 2) g;
--> locks
select f(1) = f(2)
select f(1) in (f(2), f(3))
select f(g) from generate_series(1, 2) g order by 1
select fs() order by 1
select fa() = fa()
select distinct c from ft()
select * from ft() order by c
select fj() = fj()
select fo() = fo()
select (fo()).c = (fo()).c
select c from v order by c
select y from (select fs()) x(y) order by y
select count(*) from v group by c
select f(1) is distinct from f(2)
select case f(1) when f(2) then 1 end
select max(array[f(g)]) from generate_series(1, 2) g
select array_agg(f(g) order by f(g)) from generate_series(1, 2) g
select f(1) between f(0) and f(2) from (select 1) q where f(1) = f(1)
select n from v where c = f(1)
--> free
select f(1)
select * from fs()
select n from ft() order by n
select n from v order by n
select (fo()).n = 1

--# arrays and elements : op
create table atk.a(xs atk.ct[], n int);
insert into atk.a values (array[row(1), row(2)]::atk.ct[], 1);
--> locks
select xs[1] = xs[2] from a
select xs[1] = any (xs) from a
select row(1)::ct = any (xs) from a
select n from a where xs[1] in (row(1)::ct)
select n from a where row(1)::ct <> all (xs)
select bool_and(x = row(1)::ct) from (select unnest(xs) from a) q(x)
--> free
select xs from a
select array_length(xs, 1) from a
select unnest(xs) from a
select cardinality(xs) = 2 from a
select xs[1] from a

--# an operator that compares types across
create type atk.ct as (x int);
create function atk.lowci(a atk.ct, b int) returns bool language plpgsql stable as $z$begin return lockb(1); end$z$;
create function atk.lowic(a int, b atk.ct) returns bool language plpgsql stable as $z$begin return lockb(1); end$z$;
create operator atk.= (leftarg = atk.ct, rightarg = int, function = atk.lowci);
create operator atk.= (leftarg = int, rightarg = atk.ct, function = atk.lowic);
create function atk.neg(atk.ct) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create operator atk.- (rightarg = atk.ct, function = atk.neg);
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1);
create table atk.u(a int);
insert into atk.u values (1);
--> locks
select a = 1 from t
select 1 = a from t
select n = a from t
select n from t where a in (1, 2)
select n from t where n in (a)
select n from t where a = any (array[1, 2])
select n from t where 1 = any (array[a])
select case a when 1 then 2 end from t
select -a from t
select - a from t
select n from t where a in (select a from u)
select nullif(n, a) is null from t
--> free
select n = 1 from t
select -n from t
select n from t where n in (1, 2)
select u.a from u join t on u.a = t.n

--# casts in functions with a parsed body
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bigint language plpgsql volatile as $z$begin return lockit(1); end$z$;
create cast (atk.ct as bigint) with function atk.c2b(atk.ct) as implicit;
create domain atk.d as int check (atk.lockb(value));
create table atk.t(a atk.ct, n bigint);
insert into atk.t values (row(1), 1);
create function atk.f1() returns bigint language sql stable return row(1)::atk.ct + 1;
create function atk.f2() returns bigint language sql stable begin atomic select sum(t.a) from atk.t; end;
create function atk.f3(x int) returns int language sql stable begin atomic select x::atk.d; end;
create function atk.f4() returns bool language sql stable return exists (select from atk.t where t.a = t.n);
create function atk.f5() returns setof bigint language sql stable begin atomic select t.n from atk.t order by t.a::bigint; end;
create function atk.f6() returns int language sql stable return (select 1 limit row(1)::atk.ct);
create function atk.ok1() returns bigint language sql stable return (select n + 1 from atk.t);
create function atk.ok2() returns setof atk.ct language sql stable begin atomic select a from atk.t; end;
create view atk.v as select n from atk.t where a > 0;
--> locks
select f1()
select f2()
select f3(1)
select f4()
select * from f5()
select f6()
select * from v
select f1() from t where n = f2()
--> free
select ok1()
select * from ok2()
select n from t

--# tablefunc runs SQL as text
create extension tablefunc schema atk;
create view atk.v as select 'r'::text as r, 'c'::text as c, atk.lockit(1) as n;
create view atk.tree as select 'b'::text as k, 'a'::text as p, atk.lockit(1) as n;
create table atk.t(r text, c text, n int);
insert into atk.t values ('a', 'x', 1);
create function atk.f() returns setof record language sql stable as $z$select * from crosstab('select r, c, n from atk.v') as t(r text, c1 int)$z$;
--> locks
select * from crosstab('select r, c, n from atk.v') as t(r text, c1 int)
select * from crosstab('select r, c, n from v', 'select ''c''') as t(r text, c1 int)
select * from crosstab('select r, c, atk.lock' || 'it(n) from atk.t order by 1') as t(r text, c1 int)
select * from connectby('atk.tree', 'k', 'p', 'a', 0) as t(k text, p text, l int)
select * from connectby('(select k, p, atk.lockit(1) as n from atk.tree) x', 'k', 'p', 'a', 1, '~') as t(k text, p text, l int, b text)
select * from f() as t(r text, c1 int)

--# harmless extensions
create extension citext schema atk;
create extension hstore schema atk;
create extension pg_trgm schema atk;
create extension ltree schema atk;
create extension cube schema atk;
create table atk.t(a atk.citext, h atk.hstore, l atk.ltree, n int);
insert into atk.t values ('X', 'a=>1', 'a.b', 1), ('x', 'a=>2', 'a.c', 2);
create domain atk.cd as atk.citext check (atk.lockb(1));
create function atk.lowh(atk.hstore) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
--> locks
select lowh(h) from t
select (t.h).lowh from t
select a::cd from t
select 'x'::cd
--> free
select a from t where a = 'x'
select count(distinct a) from t
select a from t order by a, n
select h -> 'a' from t
select h ? 'a' from t
select l <@ 'a'::ltree from t
select n from t where n in (1, 2)
select similarity('abc', 'abd') > 0
select a || 'y' from t
select cube(1, 2) @> cube(1, 2)

--# shadowing aggregates and windows
--: path atk, pg_catalog
create function atk.sf(s int8, v int) returns int8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create aggregate atk.sum(int) (sfunc = atk.sf, stype = int8);
create aggregate atk.max(int) (sfunc = atk.sf, stype = int8, initcond = '1');
create function atk.sf0(s int8) returns int8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create aggregate atk.count(*) (sfunc = atk.sf0, stype = int8);
create function atk.row_number() returns int8 language plpgsql as $z$begin return lockit(1); end$z$;
--> locks
select sum(g) from generate_series(1, 2) g
select max(g) from generate_series(1, 2) g
select count(*) from generate_series(1, 2) g
select sum(g) over () from generate_series(1, 2) g
select row_number()
select count(*) over () from generate_series(1, 2) g
--> free
select pg_catalog.sum(g) from generate_series(1, 2) g
select count(g) from generate_series(1, 2) g
select min(g) from generate_series(1, 2) g
select sum(g::numeric) from generate_series(1, 2) g

--# functions over whole rows
create table atk.t(a int, b text);
insert into atk.t values (1, 'x');
create view atk.v as select a, atk.lockit(a) as z from atk.t;
create function atk.f(atk.t) returns int language plpgsql stable as $z$begin return lockit($1.a); end$z$;
create function atk.g(r record) returns text language plpgsql stable as $z$begin return r::text; end$z$;
create function atk.h(atk.v) returns int language sql stable as 'select ($1).a';
--> locks
select f(t) from t
select f(t.*) from t
select f(row(1, 'x'))
select f(q) from (select * from t) q(a, b), t where false or lockb(1)
select g(v) from v
select h(v) from v
select v from v
select to_jsonb(v) from v
select array_agg(v) from v
select row_to_json(v)->'a' from v
select (select v) is null from v
select v.* from v
select v is not null from v
--> free
select g(t) from t
select t from t
select t.* from t
select row_to_json(t) from t
select t is not null from t

--# views with the clauses of a query
create table atk.t(a int, b int);
insert into atk.t values (1, 2), (2, 3);
create view atk.v1 as select a from atk.t limit atk.lockit(1);
create view atk.v2 as select a from atk.t order by atk.lockit(b);
create view atk.v3 as select count(*) from atk.t group by atk.lockit(a);
create view atk.v4 as select a from atk.t union select atk.lockit(3);
create view atk.v5 as select a, sum(b) over (order by a rows atk.lockit(1) preceding) as s from atk.t;
create view atk.v6 as select x.a from atk.t x join atk.t y on atk.lockb(x.a);
create view atk.v7 as values (1), (atk.lockit(2));
create view atk.v8 as select a from atk.t where a in (select atk.lockit(1));
create view atk.v9 as select distinct on (atk.lockit(a)) a from atk.t;
create view atk.v10 as select a from atk.t group by grouping sets ((a), (atk.lockit(b), a));
create view atk.v11 as select j.* from json_table('[{}]', '$[*]' columns (a int path '$.a' default atk.lockit(1) on empty)) j;
create view atk.v12 as select count(*) filter (where atk.lockb(a)) from atk.t;
create view atk.ok1 as select a from atk.t order by b limit 1;
create view atk.ok2 as select a, sum(b) over (order by a rows 1 preceding) as s from atk.t;
create view atk.ok3 as select a from atk.t union select 3 order by 1;
--> locks
select * from v1
select * from v2
select * from v3
select * from v4
select * from v5
select * from v6
select * from v7
select * from v8
select * from v9
select * from v10
select * from v11
select * from v12
--> free
select * from ok1
select * from ok2
select * from ok3

--# functions in sql with the clauses of a query
create table atk.t(a int, b int);
insert into atk.t values (1, 2), (2, 3);
create function atk.f1() returns setof int language sql stable as 'select a from atk.t limit atk.lockit(1)';
create function atk.f2() returns setof int language sql stable as 'select a from atk.t order by atk.lockit(b)';
create function atk.f3() returns setof int language sql stable as 'values (1), (atk.lockit(2))';
create function atk.f4() returns setof int language sql stable as 'select 1; select a from atk.t where atk.lockb(a)';
create function atk.f5(x int) returns int language sql stable as 'select (array[1, 2])[atk.lockit(x)]';
create function atk.f6(x int) returns int language sql stable as 'select case $1 when atk.lockit($1) then 1 end';
create function atk.f7() returns setof int language sql stable as 'select f1()';
create function atk.f8(x text) returns text language sql stable as $z$select $1 || E'\'' || atk.lockit(1)$z$;
create function atk.f9(x int) returns text language sql stable as $z$select '$1' || atk.lockit(x) || '--'$z$;
create function atk.f10() returns bigint language sql stable as 'with recursive q as (select 1 as n union all select atk.lockit(n) + 1 from q where n < 3) select count(*) from q';
create function atk.ok1() returns setof int language sql as 'select a from atk.t order by b limit 1';
create function atk.ok2() returns bigint language sql as 'with recursive q as (select 1 as n union all select n + 1 from q where n < 3) select count(*) from q';
create function atk.ok3(x text) returns text language sql as $z$select $1 || E'\'' || 'atk.lockit(1)'$z$;
--> locks
select * from f1()
select * from f2()
select * from f3()
select * from f4()
select f5(1)
select f6(1)
select f7()
select f8('x')
select f9(1)
select f10()
--> free
select * from ok1()
select ok2()
select ok3('x')

--# casts and names in arguments of built-ins
create type atk.e as enum ('a', 'b');
create function atk.e2t(atk.e) returns text language plpgsql stable as $z$begin return lockit(1); end$z$;
create cast (atk.e as text) with function atk.e2t(atk.e) as implicit;
create table atk.t(e atk.e, s text, n int);
insert into atk.t values ('a', 'a', 1);
--> locks
select e < 'b' from t
select e = 'a' from t
select upper(e) from t
select concat(e::text, 'x') from t
select s = e from t
select s like e from t
select s in ('x', e) from t
select md5(e) from t
select split_part(e, 'a', 1) from t
select string_agg(e, ',') from t
select regexp_replace(s, e, 'x') from t
select starts_with(s, e) from t
--> free
select e from t
select concat(e, 'x') from t
select format('%s', e) from t
select count(*) from t group by e
select enum_range(e) from t

--# casts to bool
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bool language plpgsql stable as $z$begin return lockb(1); end$z$;
create cast (atk.ct as bool) with function atk.c2b(atk.ct) as assignment;
create table atk.t(a atk.ct, n int, ok bool);
insert into atk.t values (row(1), 1, true);
create function atk.f() returns int language plpgsql stable as $z$begin if (select a from t) then return 1; end if; return 2; end$z$;
create function atk.g() returns int language plpgsql stable as $z$begin while (select a from t) loop return 1; end loop; return 2; end$z$;
create function atk.h() returns int language plpgsql stable as $z$begin loop exit when (select a from t); end loop; return 2; end$z$;
create function atk.i() returns int language plpgsql stable as $z$begin assert (select a from t); return 2; end$z$;
create function atk.ok() returns int language plpgsql stable as $z$begin if (select ok from t) then return 1; end if; return 2; end$z$;
--> locks
select f()
select g()
select h()
select i()
select a::bool from t
select n from t where a::bool
--> free
select ok()
select n from t where ok

--# casts to int in PL/pgSQL
create type atk.ct as (x int);
create function atk.c2i(atk.ct) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create cast (atk.ct as int) with function atk.c2i(atk.ct) as assignment;
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1);
create function atk.f1() returns int language plpgsql stable as $z$begin for i in (select a from t)..1 loop null; end loop; return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare x int[] := array[1, 2]; begin x[(select a::int from t)] := 5; return 1; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare r t; n int; begin select * into r from t; n := r.a; return n; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare r t; begin select * into r from t; r.n := r.a; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare r t; begin select * into r from t; return r.a; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare r record; n int; begin for r in select * from t loop n = r.a; end loop; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare n int; begin execute 'select a from t' into n; return n; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare a int; b int; begin select t.n, t.a into a, b from t; return 1; end$z$;
create function atk.f9(x atk.ct) returns int language plpgsql stable as $z$begin return x; end$z$;
create function atk.f10(x atk.ct, out y int) language plpgsql stable as $z$begin y := x; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare r t; begin select * into r from t; return r.n; end$z$;
create function atk.ok2() returns int language plpgsql stable as $z$declare n bigint := 5; m int; begin m := n; return m; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9(row(1)::ct)
select f10('(1)')
--> free
select ok1()
select ok2()
select a from t

--# casts of rows that PL/pgSQL makes
create domain atk.d as int check (atk.lockb(value));
create type atk.src as (a int, b int);
create type atk.dst as (a atk.d, b int);
create table atk.t(a int, b int);
insert into atk.t values (1, 2);
create function atk.f1() returns int language plpgsql stable as $z$declare r dst; begin r := row(1, 2); return 1; end$z$;
create function atk.f2() returns int language plpgsql stable as $z$declare r dst; begin select a, b into r from t; return 1; end$z$;
create function atk.f3() returns atk.dst language plpgsql stable as $z$declare r record; begin select a, b into r from t; return row(r.a, r.b)::dst; end$z$;
create function atk.f4() returns int language plpgsql stable as $z$declare r dst; begin for r in select a, b from t loop null; end loop; return 1; end$z$;
create function atk.f5() returns int language plpgsql stable as $z$declare r dst; begin r.b := 1; r.a := 2; return 1; end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare r dst[]; begin r[1].a := 2; return 1; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare r dst; begin r := jsonb_populate_record(null::dst, '{"a": 1}'); return 1; end$z$;
create function atk.f8() returns int language plpgsql stable as $z$declare s text := '(1,2)'; r dst; begin r := s; return 1; end$z$;
create function atk.f9() returns setof atk.dst language plpgsql stable as $z$declare r dst; begin r.a := 1; return next r; end$z$;
create function atk.f10() returns int language plpgsql stable as $z$declare s text := '1'; r d; begin r := s; return 1; end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare r src; begin select a, b into r from t; return r.b; end$z$;
create function atk.ok2() returns setof atk.src language plpgsql stable as $z$declare r src; begin r.a := 1; return next r; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select * from f9()
select f10()
--> free
select ok1()
select * from ok2()
select row(1, 2)::src

--# records compared in PL/pgSQL
create type atk.ct as (x int);
create function atk.eq(a atk.ct, b atk.ct) returns bool language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x = b.x; end$z$;
create function atk.cmp(a atk.ct, b atk.ct) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a.x - b.x; end$z$;
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq);
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 3 =, function 1 atk.cmp(atk.ct,atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1), (row(2), 2);
create function atk.f1() returns bool language plpgsql stable as $z$declare x t; y t; begin select * into x from t limit 1; y := x; return x = y; end$z$;
create function atk.f2() returns bool language plpgsql stable as $z$declare x record; begin select * into x from t limit 1; return x = x; end$z$;
create function atk.f3() returns int language plpgsql stable as $z$declare x t; begin select * into x from t limit 1; case x when x then return 1; else return 2; end case; end$z$;
create function atk.f4() returns bool language plpgsql stable as $z$declare x ct[]; begin select array_agg(a) into x from t; return x = x; end$z$;
create function atk.f5() returns bool language plpgsql stable as $z$declare x ct; begin x.x := 1; return x in (x); end$z$;
create function atk.f6() returns int language plpgsql stable as $z$declare r record; begin for r in select distinct a from t loop return (r.a).x; end loop; end$z$;
create function atk.f7() returns int language plpgsql stable as $z$declare r record; begin for r in select * from t order by 1 loop return r.n; end loop; end$z$;
create function atk.f8() returns bool language plpgsql stable as $z$declare x t; begin select * into x from t limit 1; return x is distinct from x; end$z$;
create function atk.f9() returns bool language plpgsql stable as $z$begin return (select (select t from t limit 1) = (select t from t limit 1)); end$z$;
create function atk.ok1() returns int language plpgsql stable as $z$declare r record; begin for r in select * from t order by n loop return r.n; end loop; end$z$;
create function atk.ok2() returns bool language plpgsql stable as $z$declare x t; begin select * into x from t limit 1; return x.n = 1; end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select f8()
select f9()
--> free
select ok1()
select ok2()

--# comparing support without operators : ct btree
create function atk.f1(a atk.ct, b atk.ct) returns bool language sql stable as 'select a in (select a from atk.t order by a)';
create view atk.v1 as select a, count(*) from atk.t group by a;
create view atk.v2 as select a from atk.t union select a from atk.t;
create view atk.v3 as select row_number() over (partition by a) as r from atk.t;
create view atk.v4 as select array_agg(a order by a) as r from atk.t;
create view atk.v5 as select greatest(a, row(3)::atk.ct) as g from atk.t;
create view atk.ok as select a, n from atk.t order by n;
--> locks
select f1(row(1)::ct, row(2)::ct)
select * from v1
select * from v2
select * from v3
select * from v4
select * from v5
select x.n from (select a, n from t order by a limit 2) x
select n from t where a = (select a from t order by a limit 1)
select array(select a from t order by a)
(select a from t order by a limit 1) union all select a from t
with q as (select a from t order by a) select count(*) from q limit (select count(*) from (select distinct a from t) z)
--> free
select * from ok
select n from ok order by n

--# multiranges and ranges of users' types : bt
create function atk.lt(atk.bt,atk.bt) returns bool language internal immutable strict as 'int4lt';
create function atk.cmp(a atk.bt, b atk.bt) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a::text::int - b::text::int; end$z$;
create operator atk.< (leftarg=atk.bt, rightarg=atk.bt, function=atk.lt);
create operator class atk.bto default for type atk.bt using btree as operator 1 <, function 1 atk.cmp(atk.bt,atk.bt);
create type atk.br as range (subtype = atk.bt, multirange_type_name = atk.bmr);
create table atk.t(m atk.bmr, r atk.br, n int);
insert into atk.t values ('{[1,2),[3,4)}', '[1,5)', 1), ('{[1,3)}', '[2,5)', 2);
create view atk.v as select m + m as m from atk.t;
create function atk.f(atk.bmr) returns bool language sql immutable as 'select $1 = $1';
create function atk.fj() returns bool language plpgsql stable as $z$declare x br := '[1,2)'; begin return isempty(x); end$z$;
--> locks
select '{[1,2)}'::bmr
select m @> '1'::bt from t
select m && r from t
select m = m from t
select r = r from t
select r * r from t
select m from v
select f(m) from t
select n from t order by r
select n from t order by m
select bmr(r) from t where bmr(r, r) is not null
select range_merge(m) is null, m + m from t
select array[r] = array[r] from t
select fj()
select br('1', '2')
select range_agg(r) from t
--> free
select n from t
select isempty(m) from t
select lower(r) from t
select upper_inf(r) from t

--# names of types in texts : d
create table atk.t(s text);
insert into atk.t values ('atk.d'), ('int4');
create function atk.f(text) returns bool language sql stable as $z$select pg_input_is_valid('1', $1)$z$;
create function atk.g(text) returns text language plpgsql stable as $z$begin return (select message from pg_input_error_info('1', $1)); end$z$;
create view atk.v as select pg_input_is_valid('1', s) as ok from atk.t;
--> locks
select pg_input_is_valid('1', s) from t
select f('d')
select g('atk.d')
select ok from v
select pg_input_is_valid('1', 'D')
select pg_input_is_valid('1', '"d"')
select pg_input_is_valid('1', ' d ')
select pg_input_is_valid('1', 'd[]') or pg_input_is_valid('{1}', '_d')
select pg_input_is_valid('1', format('%I', 'd'))
select (pg_input_error_info('1', 'd')).message
--> free
select pg_input_is_valid('x', 'int4')
select pg_input_is_valid('x', 'date')
select message from pg_input_error_info('x', 'pg_catalog.int4')

--# a sequence in every guise
create sequence atk.s increment 5;
create sequence atk."S";
select nextval('atk.s'), nextval('atk."S"');
create function atk.now_() returns bigint language sql stable as 'select last_value from atk.s';
create domain atk.d as bool check (value = (atk.now_() > 100));
create function atk.f(a bigint default atk.now_()) returns bigint language sql stable return a;
create table atk.t(a int);
insert into atk.t values (1);
create function atk.cmp(a int, b int) returns bool language sql stable as 'select atk.now_() > $1';
create operator atk.<<< (leftarg = int, rightarg = int, function = atk.cmp);
create type atk.ct as (x int);
create function atk.c2b(atk.ct) returns bigint language sql stable as 'select atk.now_()';
create cast (atk.ct as bigint) with function atk.c2b(atk.ct);
create function atk.sf(s bigint, v int) returns bigint language sql stable as 'select atk.now_()';
create aggregate atk.agg(int) (sfunc = atk.sf, stype = bigint);
create function atk.g(atk.t) returns bigint language plpgsql stable as $z$begin return now_(); end$z$;
create view atk.v as select t.g from atk.t;
--> differs
select f()
select 50 <<< 1
select row(1)::ct::bigint
select agg(a) from t
select t.g from t
select g from v
select last_value from "S"
select x.* from t, lateral (select last_value from s) x
select now_() + f()
select pg_input_is_valid('true', 'd')
select array(select last_value from s)
select count(*) from generate_series(1, f())
copy (select f()) to stdout
--> free
select f(5)
select a from t
select 1 < 2

--# estimators of ranges
create function atk.diff(a int, b int) returns float8 language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a - b; end$z$;
create type atk.r as range (subtype = int, subtype_diff = atk.diff);
create table atk.t(a atk.r, n int);
insert into atk.t select atk.r(g, g + 5), g from generate_series(1, 100) g;
analyze atk.t;
create table atk.u(a atk.r, n int);
insert into atk.u values ('[1,2)', 1);
create view atk.v as select n from atk.t where a && '[3,7)'::atk.r;
--> locks
explain select n from t where a && '[3,7)'::r
explain (costs off) select n from t where a @> 5
select n from t where a && '[3,7)'::r
select count(*) from t where a <@ '[3,70)'::r
select * from v
explain select * from v
--> free
select n from u
select '[1,2)'::r
select n from t where n = 1
select r(1, 2) && r(2, 3)
explain (costs off) select n from t

--# estimators of arrays : ct btree
create table atk.a(xs atk.ct[], n int);
insert into atk.a select array[row(g), row(g % 7)]::atk.ct[], g from generate_series(1, 100) g;
analyze atk.a;
create view atk.v as select n from atk.a where xs && array[row(1), row(2)]::atk.ct[];
--> locks
explain select n from a where xs && array[row(1), row(2)]::ct[]
explain select n from a where xs <@ array[row(1), row(2)]::ct[]
explain (costs off) select n from a where xs = array[row(1)]::ct[] and xs && array[row(1), row(3)]::ct[]
select n from a where xs @> array[row(1), row(2)]::ct[]
explain select * from v
select * from v
--> free
select n from a where n = 3
select xs[1] from a where n = 3
explain (costs off) select n from a

--# estimators of equality and order : bt
create function atk.lt(atk.bt,atk.bt) returns bool language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return $1::text::int < $2::text::int; end$z$;
create function atk.eq(atk.bt,atk.bt) returns bool language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return $1::text::int = $2::text::int; end$z$;
create function atk.cmp(atk.bt,atk.bt) returns int language internal immutable strict as 'btint4cmp';
create operator atk.< (leftarg=atk.bt, rightarg=atk.bt, function=atk.lt, restrict=scalarltsel, join=scalarltjoinsel);
create operator atk.= (leftarg=atk.bt, rightarg=atk.bt, function=atk.eq, restrict=eqsel, join=eqjoinsel, merges);
create operator class atk.bto default for type atk.bt using btree as operator 1 <, operator 3 =, function 1 atk.cmp(atk.bt,atk.bt);
create table atk.t(a atk.bt, n int);
insert into atk.t select (g % 9)::text::atk.bt, g from generate_series(1, 100) g;
analyze atk.t;
create table atk.c(a atk.bt, n int);
insert into atk.c select g::text::atk.bt, g from generate_series(1, 300) g;
analyze atk.c;
--> locks
explain select n from t where a = '3'
explain select n from t where a in ('3', '4')
explain select n from t where a = any ('{3,4}')
explain select n from c where a < '30'
explain select x.n from t x join t y using (a)
explain select n from t where not a = '3'
explain (costs off) select n from t where a = '3' or n = 1
select n from t where a = '3'
--> free
select n from t where n = 3
select a from t
explain (costs off) select n from t where n = 3

--# other names for the server's own functions
create function atk.calm(int8) returns void language internal stable as 'pg_advisory_lock_shared_int8';
create function atk.quiet(int8) returns bool language internal immutable as 'pg_try_advisory_lock_int8';
create function atk.plain(text, text, bool) returns text language internal stable as 'set_config_by_name';
create function atk.next(regclass) returns int8 language internal stable as 'nextval_oid';
create function atk.loud(text) returns text language internal immutable strict as 'upper';
create function atk.pg_notify_(text) returns text language internal as 'lower';
create extension dblink schema atk;
create function atk.still(text, text) returns setof record language c stable strict as '$libdir/dblink', 'dblink_record';
create sequence atk.s;
create function atk.last(regclass) returns int8 language internal stable as 'pg_sequence_last_value';
select nextval('atk.s');
create view atk.v as select atk.quiet(4242) as q;
--> locks
select calm(4242)
select quiet(4242)
select * from quiet(4242)
select 1 where quiet(4242)
select * from v
explain select 1 where quiet(4242)
--> stays
select plain('atk.mark', 'x', false)
select * from plain('atk.mark', 'x', false)
--> differs
select last('s')
select * from still('host=127.0.0.1 user=postgres dbname=postgres port=' || current_setting('port'), 'select pg_is_in_recovery()') as t(a bool)
--> refused
select next('s')
--> free
select loud('x')
select pg_notify_('X')

--# the server's own functions behind operators, casts and aggregates
create operator atk.!!! (rightarg = int8, function = pg_try_advisory_lock);
create operator atk.!!? (rightarg = int8, function = pg_advisory_lock_shared);
create operator atk.<!> (leftarg = int, rightarg = int, function = pg_try_advisory_lock);
create cast (int8 as bool) with function pg_try_advisory_lock(int8);
create aggregate atk.setall(text, bool) (sfunc = set_config, stype = text, initcond = 'atk.mark');
create domain atk.d as int check (pg_try_advisory_lock(4242));
create type atk.c as (a atk.d);
create function atk.f(a int, b bool default pg_try_advisory_lock(4242)) returns int language sql stable as 'select case when b then a end';
create operator atk.|+| (leftarg = int, rightarg = int, function = int4pl);
create aggregate atk.oksum(int) (sfunc = int4pl, stype = int, initcond = '0');
create domain atk.okd as int check (int4gt(value, 0));
create view atk.v as select !!! 4242::int8 as l;
create function atk.g() returns bool language plpgsql stable as $z$begin return 4242::int8::bool; end$z$;
create function atk.h() returns bool language plpgsql stable as $z$declare b bool; begin b := !!! 4242::int8; return b; end$z$;
--: undo drop cast if exists (int8 as bool)
--> locks
select !!! 4242::int8
select !!? 4242::int8
select 0 <!> 4242
select 4242::int8::bool
select cast(4242::int8 as bool)
select 1::d
select row(1)::c
select f(1)
select l from v
select g()
select h()
select operator(atk.!!!) 4242::int8
select array[4242::int8]::bool[]
select 1 where cast(4242::int8 as bool)
--> stays
select setall('x', false)
select setall(x, false) from (values ('x')) v(x)
--> free
select 1 |+| 2
select oksum(g) from generate_series(1, 3) g
select 1::okd
select 1::bool
select f(1, true)

--# a member of a family for two types
--: undo alter database situations reset enable_seqscan
create type atk.fb;
create function atk.fb_in(cstring) returns atk.fb language internal immutable strict as 'int4in';
create function atk.fb_out(atk.fb) returns cstring language internal immutable strict as 'int4out';
create type atk.fb (input = atk.fb_in, output = atk.fb_out, like = int4);
create function atk.eq(int, atk.fb) returns bool language internal immutable strict as 'int4eq';
create function atk.lt(int, atk.fb) returns bool language internal immutable strict as 'int4lt';
create operator atk.= (leftarg = int, rightarg = atk.fb, function = atk.eq);
create operator atk.< (leftarg = int, rightarg = atk.fb, function = atk.lt);
create function atk.cmp(a int, b atk.fb) returns int language plpgsql immutable strict as $z$begin perform pg_advisory_lock_shared(4242); return a - b::text::int; end$z$;
alter operator family pg_catalog.integer_ops using btree add operator 1 atk.< (int, atk.fb), operator 3 atk.= (int, atk.fb), function 1 (int, atk.fb) atk.cmp(int, atk.fb);
create table atk.t(a int, n int);
insert into atk.t select g, g from generate_series(1, 100) g;
create index on atk.t (a);
analyze atk.t;
alter database situations set enable_seqscan = off;
create view atk.v as select n from atk.t where a = '7'::atk.fb;
--> locks
select n from t where a = '5'::fb
select n from t where a in ('5'::fb)
select * from v
select (1, 2) = ('1'::fb, 2) and exists (select from t where a = '3'::fb)
--> free
select n from t where a = 5
select n from t where n = 5
select '5'::fb

--# XML types
create domain atk.d as int check (atk.lockb(value));
create table atk.t(x text);
insert into atk.t values ('<a>1</a>');
--> unbuilt
select * from xmltable('/a' passing ('<a>1</a>'::xml) columns a d path '.')
select * from t, xmltable('/a' passing (x::xml) columns a int path '.' default lockit(1)) q
select xmlelement(name a, lockit(1))
select xmlforest(lockit(1) as a)
select xmlparse(document '<a>' || lockit(1) || '</a>')
select xmlagg(x::xml) from t where lockb(1)
--> free
select x from t

--# a security barrier and a function that is leakproof
create function atk.leak(int) returns bool language plpgsql stable cost 0.0001 leakproof as $z$begin return lockb($1); end$z$;
create function atk.okleak(int) returns bool language plpgsql stable cost 0.0001 leakproof as $z$begin return $1 > 0; end$z$;
create table atk.t(a int);
insert into atk.t values (1), (2);
create view atk.sb with (security_barrier) as select a from atk.t where a > 1;
create view atk.sl with (security_barrier) as select a from atk.t where atk.leak(a);
--> locks
select * from sb where leak(a)
select * from sl
select a from sl where a = 1
select count(*) from sb where lockb(a)
--> free
select * from sb where okleak(a)
select * from sb

--# a language of another name
--: undo drop language calm cascade
create language calm handler plpgsql_call_handler inline plpgsql_inline_handler validator plpgsql_validator;
create function atk.f() returns int language calm immutable as $z$begin return lockit(1); end$z$;
create function atk.g() returns int language calm stable as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create view atk.v as select atk.g() as n;
create function atk.h() returns int language sql stable as 'select atk.f()';
--> locks
select f()
select g()
select * from v
select h()
explain select f()
do language calm $z$begin perform atk.lockit(1); end$z$

--# a function that is named like a type
create domain atk.okd as int check (atk.lockb(value));
create function atk.okd(int) returns int language sql immutable as 'select $1 + 1';
create domain atk.sd as int check (value > 0);
create function atk.sd(int) returns int language plpgsql stable as $z$begin return lockit($1); end$z$;
create type atk.ct as (x int);
create function atk.ct(int) returns int language plpgsql stable as $z$begin return lockit($1); end$z$;
create function atk.f() returns int language plpgsql stable as $z$declare x sd := 1; begin return x; end$z$;
create function atk.g() returns int language plpgsql stable as $z$declare x int := okd(1); begin return x; end$z$;
create function atk.h() returns int language plpgsql stable as $z$declare x okd := 1; begin return x; end$z$;
--> locks
select okd('1')
select sd(1)
select 1::okd
select okd '1'
select ct(1)
select h()
select '{1}'::okd[]
select sd(okd(1))
--> free
select okd(1)
select 1::sd
select sd '1'
select sd('1')
select row(1)::ct
select f()
select g()

--# a column that is named like a function
create table atk.t(a int, lockx int, nextval int);
insert into atk.t values (1, 2, 3);
create function atk.lockx(atk.t) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create function atk.locky(atk.t) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create view atk.v as select t.lockx as l from atk.t;
create view atk.w as select t.locky as l from atk.t;
create function atk.f() returns int language plpgsql stable as $z$declare r t; begin select * into r from t; return r.lockx; end$z$;
create function atk.g() returns int language plpgsql stable as $z$begin return (select locky(t) from t); end$z$;
--> locks
select lockx(t) from t
select t.locky from t
select (t).locky from t
select a from t where t.locky = 1
select l from w
select g()
select locky(t.*) from t
select lockx(x) from (select t from t) q(x)
--> free
select t.lockx from t
select (t).lockx from t
select lockx from t
select nextval(t) from t
select a(t) from t
select l from v
select f()
select q.locky from (select 1 as locky) q

--# keys that end the walk early
create function atk.f(a int) returns int language sql stable as 'select a';
create function atk.f(a int, b int) returns int language plpgsql stable as $z$begin return lockit(a); end$z$;
create view atk.f as select atk.f(1, 2) as n;
create domain atk.g as int check (value > 0);
create table atk.g2(g atk.g);
insert into atk.g2 values (1);
create function atk.g(int, int) returns int language plpgsql stable as $z$begin return lockit(1); end$z$;
create operator atk.%> (leftarg = int, rightarg = int, function = atk.g);
create operator atk.%> (leftarg = text, rightarg = text, function = starts_with);
create function atk.h() returns int language plpgsql stable as $z$declare f int := 1; g int := 2; begin return f + g; end$z$;
create function atk.i() returns int language plpgsql stable as $z$declare f int := 1; begin return f(f, 2); end$z$;
--> locks
select f(1, 2)
select * from f
select n from atk.f
select g(1, 2)
select 1 %> 2
select i()
select f(f.n) from f
--> free
select f(1)
select 1::g
select g from g2
select 'ab'::text %> 'a'::text
select h()

--# casts of built-in types
--: undo drop cast if exists (int4 as text); drop cast if exists (bigint as bool)
create function atk.i2t(int4) returns text language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 'x'; end$z$;
create cast (int4 as text) with function atk.i2t(int4) as implicit;
--> locks
select length(5)
select upper(5)
select 5::text
select * from (values (5)) v(x) where x like 'x'

--# assignment casts that a form asks for : ct
create function atk.c2b(atk.ct) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create function atk.c2i(atk.ct) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.c2l(atk.ct) returns bigint language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.c2f(atk.ct) returns float8 language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.c2r(atk.ct) returns float4 language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.c2x(atk.ct) returns xml language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return null; end$z$;
create cast (atk.ct as bool) with function atk.c2b(atk.ct) as assignment;
create cast (atk.ct as int) with function atk.c2i(atk.ct) as assignment;
create cast (atk.ct as bigint) with function atk.c2l(atk.ct) as assignment;
create cast (atk.ct as float8) with function atk.c2f(atk.ct) as assignment;
create cast (atk.ct as float4) with function atk.c2r(atk.ct) as assignment;
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1);
--> locks
select 1 from t where a
select not a from t
select case when a then 1 end from t
select count(*) filter (where a) from t
select a is true from t
select 1 from t t1 join t t2 on t1.a
select n from t limit (select a from t)
select n from t offset (select a from t)
select (array[1,2])[a] from t
select (array[1,2])[1:a] from t
select n from t tablesample system (50) repeatable ((select a from t))
select sum(n) over (order by n rows (select a from t) preceding) from t

--# default class of a builtin type
create function atk.bc(a box, b box) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 0; end$z$;
create operator class atk.bo default for type box using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.bc(box,box);
create table atk.t(b box, n int);
insert into atk.t values ('(1,1),(0,0)',1),('(1,1),(0,0)',2);
--> locks
select b from t order by b
select b from t order by 1
select distinct b from t
select greatest(b, b) from t
select b from t union select b from t
select b, count(*) from t group by b
select array[b] < array[b] from t

--# default class of varchar
create function atk.vc(a varchar, b varchar) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 0; end$z$;
create function atk.vlt(a varchar, b varchar) returns bool language sql immutable as $z$select a::text < b::text$z$;
create operator atk.< (leftarg=varchar, rightarg=varchar, function=atk.vlt);
create operator atk.<= (leftarg=varchar, rightarg=varchar, function=atk.vlt);
create operator atk.= (leftarg=varchar, rightarg=varchar, function=atk.vlt);
create operator atk.>= (leftarg=varchar, rightarg=varchar, function=atk.vlt);
create operator atk.> (leftarg=varchar, rightarg=varchar, function=atk.vlt);
create operator class atk.vo default for type varchar using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.vc(varchar,varchar);
create table atk.t(b varchar, n int);
insert into atk.t values ('a',1),('b',2);
--> locks
select b from t order by b
select greatest(b, 'x'::varchar) from t

--# cross type member of builtin family
--: undo drop function if exists atk.x()
create function atk.inlt(a int, b numeric) returns bool language sql immutable as $z$select a::numeric < b$z$;
create function atk.ineq(a int, b numeric) returns bool language sql immutable as $z$select a::numeric = b$z$;
create function atk.incmp(a int, b numeric) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return sign(a::numeric - b); end$z$;
create operator atk.= (leftarg=int, rightarg=numeric, function=atk.ineq);
create operator atk.< (leftarg=int, rightarg=numeric, function=atk.inlt);
alter operator family integer_ops using btree add operator 3 atk.= (int, numeric), operator 1 atk.< (int,numeric), function 1 (int, numeric) atk.incmp(int, numeric);
create table atk.t(a int primary key, n int);
insert into atk.t select g, g from generate_series(1,1000) g;
analyze atk.t;
--> locks
select row(1, 1) < row(1::numeric, 1)

--# settings of a standby, named late
create view atk.v as select current_setting('in_hot_standby');
create view atk.w as select x, current_setting(x) from (values ('in_hot_standby')) v(x);
create function atk.ba() returns text stable begin atomic select current_setting('transaction_read_only'); end;
create function atk.pl(x text) returns text stable language plpgsql as $z$begin return current_setting(x); end$z$;
create function atk.df(x text default current_setting('in_hot_standby')) returns text stable language sql as $z$select x$z$;
create function atk.st() returns text stable language sql as $z$select current_setting('in_hot_standby')$z$;
--> differs
select * from v
select * from w
select ba()
select pl('in_hot_standby')
select df()
select st()
select current_setting('in_hot_' || 'standby')
select current_setting(x) from (values ('in_hot_standby')) v(x)
select ('in_hot_standby'::text).current_setting
select current_setting('in_hot_standby')

--# pg_temp function in a view
--: undo discard temp
create function pg_temp.f(x int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return x; end$z$;
create view atk.v as select pg_temp.f(1);
create domain pg_temp.d as int check (atk.lockb(value));
create table atk.t(a int default pg_temp.f(1));
create function atk.g(x int default pg_temp.f(1)) returns int stable language sql as $z$select $1$z$;
create view atk.w as select 1::pg_temp.d;
create aggregate pg_temp.ag(int) (sfunc=int4pl, stype=int, finalfunc=atk.lockit);
create view atk.wa as select pg_temp.ag(1);
--> locks
select * from v
select g()
select * from w
select * from wa

--# row types of tables
create table atk.t(a int, n int);
insert into atk.t values (1,1);
create function atk.teq(a atk.t, b atk.t) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create function atk.t2b(a atk.t) returns bigint language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.t2o(a atk.t) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.@@ (leftarg=atk.t, rightarg=atk.t, function=atk.teq);
create operator atk.= (leftarg=atk.t, rightarg=atk.t, function=atk.teq);
create cast (atk.t as bigint) with function atk.t2b(atk.t);
create cast (atk.t as bool) with function atk.t2o(atk.t) as assignment;
create table atk.ch(z int) inherits (atk.t);
insert into atk.ch values (1,2,3);
create view atk.vw as select * from atk.t;
create view atk.vr as select t as r from atk.t;
--> locks
select x @@ x from t x
select t @@ t from t
select x::bigint from t x
select 1 from t x where x
select t = t from t
select c @@ c from ch c
select c::t::bigint from ch c
select r @@ r from vr
select q.x @@ q.x from (select x from t x) q
select x in (select y from t y) from t x

--# literals that go on after EXECUTE
create function atk.doloop(x int) returns int language plpgsql volatile as $q$begin perform pg_advisory_lock_shared(4242); return x; end$q$;
create function atk.f() returns int language plpgsql as $z$
begin
  execute 'select 1'
  ';'
  'select pg_advisory_lock_shared(4242)';
  return 1;
end$z$;
create function atk.g() returns int language plpgsql as $z$
begin
  execute 'select atk.do'
  'loop'
  '(1)';
  return 1;
end$z$;
--> locks
select f()
select g()

--# cursors held by EXECUTE
create function atk.f() returns int language plpgsql as $z$begin execute 'declare c cursor with hold for select 1'; return 1; end$z$;
create function atk.g() returns int language sql as $z$declare c cursor with hold for select 1; select 1$z$;
create function atk.h() returns int language plpgsql as $z$begin checkpoint; return 1; end$z$;
create function atk.i() returns int language plpgsql as $z$begin set constraints.mark = 'x'; perform current_setting('constraints.mark'); perform 1/(case when current_setting('constraints.mark')='x' then 0 else 1 end); return 1; end$z$;
--> stays
select f()
select g()

--# underscore types
create domain atk._d as int check (atk.lockb(value));
create domain atk.d as int;
create function atk.f() returns int language plpgsql stable as $z$declare v atk._d; begin v := 1; return 1; end$z$;
create function atk.g() returns int language sql stable as $z$select 1::atk._d$z$;
create function atk.h() returns int language plpgsql stable as $z$declare v int; begin v := 1::_d; return 1; end$z$;
--> locks
select 1::_d
select 1::atk._d
select '{1}'::__d
select '{1}'::_d[]
select cast(1 as _d)
select f()
select g()
select _d(1)

--# names of types quoted
create domain atk." d" as int check (atk.lockb(value));
create domain atk."d[]" as int check (atk.lockb(value));
create domain atk."x.d" as int check (atk.lockb(value));
create domain atk."d(" as int check (atk.lockb(value));
create domain atk.d as int;
--> locks
select pg_input_is_valid('1', '" d"')
select pg_input_is_valid('1', '"d[]"')
select pg_input_is_valid('1', '"x.d"')
select pg_input_is_valid('1', 'atk."x.d"')
select pg_input_is_valid('1', '"d("')

--# percent signs : d
create sequence atk.s;
select nextval('atk.s');
create table atk.t(a int);
insert into atk.t values (1);
create function atk.lockrow(atk.t) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function atk.two(int,int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.%% (leftarg=int, rightarg=int, function=atk.two);
--> locks
select 5 %(1::d)s
select 5 %(x.lockrow)s from t x
select 1 %% 2
--> differs
select 5 %(select last_value from s)s

--# operators percent
create type atk.ct as (x int);
create function atk.two(int,atk.ct) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create operator atk.% (leftarg=int, rightarg=atk.ct, function=atk.two);
create table atk.t(s atk.ct, n int);
insert into atk.t values (row(1), 1);
--> locks
select n %s from t
select n %(s)s from t

--# command counters of rows
create table atk.t(a int);
insert into atk.t values (1);
insert into atk.t values (2);
insert into atk.t values (3);
create view atk.v as select cmin, a from atk.t;
--> differs
select cmin, a from t
select t.cmax, a from t
select * from v

--# casts of results
--: undo drop cast if exists (bigint as bool)
create function atk.l2b(bigint) returns bool language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create cast (bigint as bool) with function atk.l2b(bigint) as assignment;
create function atk.f() returns bool language sql stable as $z$select 4242::bigint$z$;
create function atk.g() returns bool language plpgsql stable as $z$begin return 4242::bigint; end$z$;
create function atk.h() returns table(a bool) language sql stable as $z$select count(*) from pg_class$z$;
create function atk.i() returns bool language sql stable begin atomic select 4242::bigint; end;
create function atk.j(out a bool) language plpgsql stable as $z$begin a := 4242::bigint; end$z$;
create function atk.k() returns int language plpgsql stable as $z$begin if 4242::bigint then return 1; end if; return 2; end$z$;
create function atk.l() returns int language plpgsql stable as $z$begin while 4242::bigint loop return 1; end loop; return 2; end$z$;
create table atk.t(a bool);
insert into atk.t values (true);
create function atk.m() returns int language plpgsql stable as $z$declare r atk.t; begin r.a := 4242::bigint; return 2; end$z$;
create function atk.n() returns int language plpgsql stable as $z$declare r atk.t.a%type; begin r := 4242::bigint; return 2; end$z$;
create function atk.o() returns atk.t language plpgsql stable as $z$begin return row(4242::bigint); end$z$;
create function atk.p() returns int language plpgsql stable as $z$declare r atk.t; begin select 4242::bigint into r; return 2; end$z$;
--> locks
select f()
select g()
select * from h()
select j()
select k()
select l()
select m()
select n()
select p()
select 1 where 4242::bigint
select not count(*) from pg_class
select 1 having count(*)
select case when count(*) then 1 end from pg_class

--# domains over settings of a standby
create domain atk.d as bool check (value <> (current_setting('in_hot_standby') = 'on'));
create function atk.ib() returns bool language sql as $z$select current_setting('in_hot_standby')::bool$z$;
create domain atk.e as bool check (value <> atk.ib());
--> differs
select pg_input_is_valid('t', 'd')
select pg_input_is_valid('t', 'e')

--# typed tables
create type atk.ct as (x int);
create function atk.loweq(a atk.ct, b atk.ct) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return a.x = b.x; end$z$;
create operator atk.@@ (leftarg=atk.ct, rightarg=atk.ct, function=atk.loweq);
create function atk.c2b(atk.ct) returns bool language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create cast (atk.ct as bool) with function atk.c2b(atk.ct) as implicit;
create table atk.t of atk.ct;
insert into atk.t values (1);
create function atk.pf(p atk.ct) returns int language sql stable as $z$select 1 where p @@ p$z$;
--> locks
select t @@ t from t
select 1 from t where t::ct
select pf(t) from t

--# temp names in bodies
--: undo discard temp
create function pg_temp.f(x int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return x; end$z$;
do $$begin execute format('create function atk.g() returns int language plpgsql as %L', format('begin return %I.f(1); end', pg_my_temp_schema()::regnamespace)); 
execute format('create function atk.h() returns int language sql as %L', format('select %I.f(1)', pg_my_temp_schema()::regnamespace)); end$$;
create domain pg_temp.d as int check (atk.lockb(value));
create table atk.t(a pg_temp.d);
create function pg_temp.cmp(int,int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 0; end$z$;
create function pg_temp.two(int,int) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 0; end$z$;
create operator atk.@@ (leftarg=int, rightarg=int, function=pg_temp.two);
create aggregate atk.ag(int) (sfunc=pg_temp.two, stype=int);
create function atk.dd(x int default pg_temp.f(1)) returns int stable language sql begin atomic select x; end;
create policy p on atk.t using (true);
create type atk.ee as enum('a');
create function pg_temp.e2i(atk.ee) returns int language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return 0; end$z$;
create cast (atk.ee as int) with function pg_temp.e2i(atk.ee);
--> locks
select g()
select h()
select jsonb_populate_record(null::t, '{"a":1}')
select 1 @@ 2
select ag(1)
select dd()
select 'a'::ee::int

--# hidden types in other forms : d
create table atk.t(a int, j jsonb);
insert into atk.t values (1, '{"a": 1}');
create type atk.c as (a atk.d);
--> locks
select json_value('{"a":1}', '$.a' returning atk.d)
select json_query('{"a":{"a":1}}', '$.a' returning atk.c)
select * from json_table('[1]', '$[*]' columns (a atk.d path '$'))
select * from json_table('[{"a":1}]', '$[*]' columns (nested path '$' columns (b d path '$.a')))
select x.* from jsonb_to_record('{"a":1}') as x(a atk.d)
select * from rows from (jsonb_to_record('{"a":1}') as (a atk.d)) x
select json_value('{"a":1}', '$.b' returning atk.d default 1 on empty)
select json_object('a': 1::d)
select (jsonb_populate_recordset(null::c, '[{"a":1}]')).a
select cast('{1,2}' as d[])
select cast(array[1] as d array)
select d '1'
select array[1]::d[1]
select '(1)'::c
select coalesce(null::d, 1)
select nullif(1, 2)::atk.d

--# sums and windows : ct
create function atk.plus1(a atk.ct, b atk.ct) returns atk.ct language plpgsql immutable as $z$begin perform pg_advisory_lock_shared(4242); return a; end$z$;
create operator atk.+ (leftarg=atk.ct, rightarg=atk.ct, function=atk.plus1);
create aggregate atk.sum(atk.ct) (sfunc=atk.plus1, stype=atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values (row(1), 1), (row(2),2);
create view atk.v as select a as b from atk.t;
--> locks
select sum(a) from t
select atk.sum(b) from v
select q.z + q.z from (select b from v) q(z)
select z + z from v as v(z)
with r as (table v) select b + b from r
with r(y) as (select b from v) select y + y from r
select (select b + v.b) from v
select x + x from (values ((select b from v limit 1))) w(x)
select b operator(atk.+) b from (v cross join (select 1) k)
select y + y from (t join (select 1 as n) k using (n)) as j(n2, y)
select j.a + j.a from (t join (select 1 as n) k using (n)) j
select (b + b).x from v
select array_agg(b + b) from v
select b + '(1)' from v
select lag(b + b) over () from v
select (array_agg(a))[1] + (array_agg(a))[1] from t
select (select array_agg(x) from t x)[1].a + row(1)::ct

--# sql body casts of arguments
--: undo drop cast if exists (text as int)
create function atk.t2i(text) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (text as int) with function atk.t2i(text) as implicit;
create function atk.takes(x int) returns int language sql stable as $z$select x$z$;
create function atk.body() returns int language sql stable as $z$select abs('5'::text)$z$;
create view atk.v as select 5 as a;
--> locks
select takes('5'::text)
select abs('5'::text)
select body()
select upper('a')::int
select generate_series(1, '3'::text)
select substr('abc', '1'::text)
select left('abc', '1'::text)

--# settings of a standby in bodies
create function atk.fset() returns text language sql stable set search_path = pg_catalog as $z$select current_setting('in_hot_standby')$z$;
create function atk.shows() returns text language plpgsql as $z$declare r text; begin execute 'show in_hot_standby' into r; return r; end$z$;
create function atk.shows2() returns text language plpgsql as $z$declare r text; begin for r in execute 'show transaction_read_only' loop return r; end loop; end$z$;
create function atk.rec() returns text language plpgsql as $z$declare r text; begin r := current_setting('in_hot_' || 'standby'); return r; end$z$;
create function atk.recov() returns text language plpgsql as $z$declare r text; begin r := setting from pg_settings where name = 'in_hot_standby'; return r; end$z$;
--> differs
select fset()
select shows()
select shows2()
select rec()
select recov()
show in_hot_standby
show transaction_read_only
select name, setting from pg_settings where name = 'in_hot_standby'
select pg_show_all_settings() from (select 1) x limit 500

--# pgrowlocks
--: undo select public.dblink_disconnect('c'); drop table public.locked; drop extension if exists pgrowlocks; drop extension if exists dblink
create extension pgrowlocks schema public;
create extension dblink schema public;
create table public.locked(a int);
insert into public.locked values (1);
create view atk.v as select * from pgrowlocks('public.locked');
commit;
select public.dblink_connect('c', format('dbname=%s port=%s host=127.0.0.1 user=postgres', current_database(), current_setting('port')));
select public.dblink_exec('c', 'begin');
select * from public.dblink('c', 'select a from public.locked for update') as x(a int);
--> differs
select * from pgrowlocks('public.locked')
select pids from public.pgrowlocks('public.locked')
select * from v

--# more plpgsql
create type atk.ct as (x int);
create function atk.c2i(atk.ct) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create cast (atk.ct as int) with function atk.c2i(atk.ct);
create cast (atk.ct as bool) with inout;
create table atk.t(a atk.ct, i int);
insert into atk.t values (row(1), 1);
create function atk.f1() returns int language plpgsql as $z$declare r record; begin for r in select a::int as b from t loop null; end loop; return 1; end$z$;
create function atk.f2() returns int language plpgsql as $z$#variable_conflict use_column
<<outer>>
begin perform atk.lockit(1); return 1; end$z$;
create function atk.f3() returns int language plpgsql as $z$declare c cursor (k int) for select lockit(k); x int; begin open c(1); fetch c into x; return x; end$z$;
create function atk.f4() returns int language plpgsql as $z$begin case lockit(1) when 1 then return 1; else return 2; end case; end$z$;
create function atk.f5() returns int language plpgsql as $z$begin raise debug using message = lockit(1)::text; return 1; end$z$;
create function atk.f6() returns int language plpgsql as $z$begin return (select a::int from atk.t); end$z$;
create function atk.f7(x int default 1, variadic y int[] default array[atk.lockit(1)]) returns int language plpgsql as $z$begin return 1; end$z$;
create function atk.f8() returns setof int language plpgsql as $z$begin return query execute 'select atk.lo' || 'ckit(1)'; end$z$;
create function atk.f9() returns int language plpgsql as $z$declare i int := 1; begin execute E'select atk.lock\x69t(1)'; return 1; end$z$;
create function atk.fa() returns int language plpgsql as $z$begin execute $q$select $r$x$r$, atk.lockit(1)$q$; return 1; end$z$;
create function atk.fb() returns int language plpgsql as $z$begin execute 'do $q$begin perform atk.lockit(1); end$q$'; return 1; end$z$;
create function atk.fc() returns int language plpgsql as $z$declare "select" int; begin "select" := atk.lockit(1); return 1; end$z$;
create function atk.fd() returns int language plpgsql as $z$begin assert lockit(1) = 1; return 1; end$z$;
create function atk.fe() returns int language plpgsql as $z$begin return 1; exception when division_by_zero then return lockit(1); end$z$;
create function atk.ff() returns int language plpgsql as $z$begin perform 1/0; exception when division_by_zero then perform lockit(1); return 1; end$z$;
create function atk.fg() returns int language plpgsql as $z$begin execute 'select 1' using lockit(1); return 1; end$z$;
create function atk.fh() returns int language plpgsql as $z$begin return 1 from (select lockit(1)) x; end$z$;
create function atk.fi() returns int language plpgsql as $z$declare v int[] := array[0]; begin v[lockit(1)] := 2; return 1; end$z$;
create function atk.fj() returns int language plpgsql as $z$begin execute concat('select atk.', 'lockit(1)'); return 1; end$z$;
create function atk.fk() returns int language plpgsql as $z$begin for i in reverse lockit(1)..1 by lockit(1) loop null; end loop; return 1; end$z$;
create function atk.fm() returns int language plpgsql as $z$declare r refcursor; x int; begin open r no scroll for execute 'select lockit(1)'; fetch r into x; return x; end$z$;
create function atk.fn() returns int language plpgsql as $z$begin call atk.pr(); return 1; end$z$;
create procedure atk.pr() language plpgsql as $z$begin perform lockit(1); end$z$;
--> locks
select f1()
select f2()
select f3()
select f4()
select f5()
select f6()
select f7()
select * from f8()
select f9()
select fa()
select fb()
select fc()
select fd()
select ff()
select fg()
select fh()
select fi()
select fj()
select fk()
select fm()
select fn()

--# implied functions
create type atk.ct as (x int);
create function atk.minus(a atk.ct) returns atk.ct language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return a; end$z$;
create operator atk.- (rightarg=atk.ct, function=atk.minus);
create function atk.overlaps(int,int,int,int) returns bool language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create function atk.xlike(atk.ct, text) returns bool language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create operator atk.~~ (leftarg=atk.ct, rightarg=text, function=atk.xlike);
create operator atk.~~* (leftarg=atk.ct, rightarg=text, function=atk.xlike);
create operator atk.~ (leftarg=atk.ct, rightarg=text, function=atk.xlike);
create operator atk.!~~ (leftarg=atk.ct, rightarg=text, function=atk.xlike);
create function pg_catalog.overlaps(int,int,int,int) returns bool language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create function pg_catalog.timezone(text, int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.extract(text, int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.like_escape(int, int) returns text language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.is_normalized(int, text) returns bool language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return true; end$z$;
create function pg_catalog.timezone(int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.position(int, int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.overlay(int, int, int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.btrim(int, int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.pg_collation_for(int) returns int language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.similar_to_escape(int, text) returns text language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
create function pg_catalog.substring(int, int, text) returns text language plpgsql as $z$begin perform pg_advisory_lock_shared(4242); return 1; end$z$;
--: undo drop function pg_catalog.overlaps(int,int,int,int), pg_catalog.timezone(text, int), pg_catalog.extract(text, int), pg_catalog.like_escape(int,int), pg_catalog.is_normalized(int,text), pg_catalog.timezone(int), pg_catalog.position(int,int), pg_catalog.overlay(int,int,int), pg_catalog.btrim(int,int), pg_catalog.pg_collation_for(int), pg_catalog.similar_to_escape(int,text), pg_catalog.substring(int,int,text)
create table atk.t(a atk.ct);
insert into atk.t values (row(1));
--> locks
select - a from t
select a like 'x' from t
select a not like 'x' from t
select a ilike 'x' from t
select a similar to 'x' from t
select (1,1) overlaps (1,1)
select 1 at time zone 'x'
select extract(day from 1)
select 1 at local
select 1 is nfc normalized
select position(1 in 1)
select overlay(1 placing 1 from 1)
select trim(1 from 1)
select substring(1 from 1 for 'x'::text)
select 'x' like 1 escape 1
select -t.a from t order by - a

--# odd relations
create domain atk.d as int check (atk.lockb(value));
create table atk.src(a int, b text);
insert into atk.src values (1, 'x');
create view atk.v with (security_barrier) as select a::atk.d as x from atk.src;
create view atk.vv as select 1 as one from atk.v offset 0;
create materialized view atk.m as select 1 as a;
create function atk.tr(int) returns table(x int) language sql as $z$select x from atk.v$z$;
create view atk.rec as with recursive r(n) as (select 1 union all select n + 1 from r where n < atk.lockit(2)) select * from r;
create view atk.tsq as select * from atk.src tablesample bernoulli (atk.lockit(50));
create view atk.wi as select sum(a) over (order by a rows atk.lockit(1) preceding) from atk.src;
create view atk.gs as select count(*) filter (where atk.lockb(0)) from atk.src group by grouping sets ((a), ());
create view atk.js as select json_object('a': atk.lockit(1)), json_array(atk.lockit(2)) as b, json_arrayagg(atk.lockit(a)) as c from atk.src;
create view atk.jv as select json_value(jsonb '1', '$' returning int default atk.lockit(1) on empty) from atk.src;
create view atk.jt as select * from json_table(jsonb '[1]', '$[*]' passing atk.lockit(1) as z columns (a int path '$')) x;
create view atk.jd as select * from json_table(jsonb '[1]', '$[*]' columns (a atk.d path '$')) x;
create view atk.jq as select json_query(jsonb '1', '$' returning atk.d) x;
create view atk.ar as select (array[1,2])[atk.lockit(1)];
create view atk.co as select coalesce(null, atk.lockit(1)), greatest(1, atk.lockit(2)) as b, nullif(1, atk.lockit(1)) as c, array[atk.lockit(1)];
create view atk.lim as select a from atk.src limit atk.lockit(1) offset atk.lockit(0);
create view atk.dis as select distinct on (atk.lockit(a)) a from atk.src;
create view atk.sub as select 1 where (1, 2) in (select atk.lockit(1), 2);
create view atk.rf as select * from rows from (generate_series(1, atk.lockit(1)), unnest(array[1])) with ordinality;
create view atk.lat as select * from atk.src, lateral (select atk.lockit(a)) l;
create view atk.hav as select 1 from atk.src having count(*) > atk.lockit(0);
--> locks
select * from v
select x from v
select * from tr(1)
select * from rec
select * from wi
select * from gs
select * from js
select * from jt
select * from jd
select * from jq
select * from ar
select * from co
select * from lim
select * from dis
select * from sub
select * from rf
select * from lat
select * from hav
select * from tsq

--# settings through other names
create function atk.cs(text) returns text language internal stable strict as 'show_config_by_name';
create operator atk.!! (rightarg = text, function = current_setting);
create aggregate atk.ags(text) (sfunc = textcat, stype = text, finalfunc = current_setting);
create view atk.v as select !! 'in_hot_standby' as a;
--> differs
select cs('in_hot_standby')
select !! 'in_hot_standby'
select ags('in_hot_standby')
select * from v

--# a function of the server's own in SQL that was replaced
--: undo create or replace function pg_catalog.lpad(text, integer) returns text language sql immutable parallel safe strict cost 1 return lpad($1, $2, ' ')
create or replace function pg_catalog.lpad(text, integer) returns text language sql immutable strict as $z$select atk.lockit(1)::text$z$;
create view atk.v as select lpad('x', 3);
--> locks
select lpad('a', 3)
select * from v
--# a view of information_schema that was replaced
--: undo create or replace view information_schema.information_schema_catalog_name as select current_database()::information_schema.sql_identifier as catalog_name
create or replace view information_schema.information_schema_catalog_name as select atk.lockit(1)::text::information_schema.sql_identifier as catalog_name;
create view atk.v as select * from information_schema.information_schema_catalog_name;
--> locks
select * from information_schema.information_schema_catalog_name
select * from v
