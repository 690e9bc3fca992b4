-- Situations that attack the classifier: what is made on the primary, and what is asked then.
--
-- "--= name" begins a fragment, which set-ups name after a colon; "--# name : fragments" begins a
-- situation: its set-up comes first, with "--: path" and "--: role" where it is asked with another
-- search path than atk, public or by another role than the superuser. Before each set-up the schema
-- atk is made, with atk.lockit(int) and atk.lockb(int), which take the shared advisory lock 4242
-- and return their argument or true. Then come statements, one a line, where a line that starts
-- with spaces goes on with the one before, under how it shows that a replica ran them in silence:
--
-- "--> locks"    the session on the replica has the lock afterwards
-- "--> held"     the same, inside a transaction that is still open
-- "--> differs"  the replica answers, and not what the primary answers
-- "--> stays"    the session has a setting, seed, prepared statement or held cursor afterwards
-- "--> resets"   statistics of the replica are gone
-- "--> refused"  not in silence: the replica raises an error
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
create function atk.hash(a atk.ct) returns int language plpgsql volatile as $z$begin perform pg_advisory_lock_shared(4242); return a.x; end$z$;
create operator atk.< (leftarg=atk.ct, rightarg=atk.ct, function=atk.lt);
create operator atk.<= (leftarg=atk.ct, rightarg=atk.ct, function=atk.le);
create operator atk.= (leftarg=atk.ct, rightarg=atk.ct, function=atk.eq, hashes, merges);
create operator atk.>= (leftarg=atk.ct, rightarg=atk.ct, function=atk.ge);
create operator atk.> (leftarg=atk.ct, rightarg=atk.ct, function=atk.gt);
--= btree
create operator class atk.cto default for type atk.ct using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 atk.cmp(atk.ct,atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values(row(1), 1),(row(2), 2),(row(1), 3);
--= hash
create operator class atk.cth default for type atk.ct using hash as operator 1 =, function 1 atk.hash(atk.ct);
create table atk.t(a atk.ct, n int);
insert into atk.t values(row(1), 1),(row(2), 2),(row(1), 3);
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
