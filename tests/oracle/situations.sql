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
