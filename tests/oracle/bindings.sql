-- What a statement leaves in its session: what is made before, and the statement, one a line.
--
-- A line that begins with "-- " makes something for the statements after it, up to the next such
-- line. "--> binds" begins what leaves something, "--> free" what leaves nothing.

--> binds
-- select 1
do $$begin perform set_config('atk.mark', 'x', false); end$$
do $$declare t bool := false; begin perform set_config('atk.mark', 'x', t); end$$
do $$begin set atk.mark = 'x'; end$$
do $$begin set session atk.mark = 'x'; end$$
do $$begin set local.mark = 'x'; end$$
do $$begin set constraints.mark = 'x'; end$$
do $$begin execute 'set atk.' || 'mark = 1'; end$$
do $$begin execute 'set atk.mark = 1'; end$$
do $$begin execute 'select 1' /**/; execute 'set atk.mark = 1'; end$$
do $$begin create temp table x(a int); end$$
do $$begin create table pg_temp.x(a int); end$$
do $$begin create table "pg_temp".x(a int); end$$
do $$begin create function pg_temp.x() returns int language sql as 'select 1'; end$$
do $$begin create temporary view x as select 1; end$$
do $$begin create local temporary sequence x; end$$
do $$begin listen x; end$$
do $$begin execute 'prepare x as select 1'; end$$
do $$begin execute 'declare c cursor with hold for select 1'; end$$
do $$begin perform pg_advisory_lock(4242); end$$
do $$begin if pg_try_advisory_lock_shared(4242) then null; end if; end$$
do $$begin perform atk.leave(1); end$$
do $$begin insert into atk.t values (atk.leave(1)); end$$
create temp table x(a int)
create table pg_temp.x(a int)
create table U&"pg\005ftemp".x(a int)
create table U&"pg!005ftemp" uescape '!'.x(a int)
create view pg_temp.x as select 1
create function pg_temp.x() returns int language sql as 'select 1'
create function U&"pg\005ftemp".x() returns int language sql as 'select 1'
select 1 as a into temp x
create temp sequence x
create temp table x as select 1
create temp view x as select 1
set search_path = pg_temp; create table x(a int)
set search_path = U&'pg\005ftemp'; create table x(a int)
prepare x as select 1
listen x
declare c cursor with hold for select 1
select pg_advisory_lock(4242)
select pg_try_advisory_lock(4242)
select (4242::bigint).pg_advisory_lock
select atk.leave(1)
insert into atk.t values (atk.leave(1))
insert into atk.t select atk.leave(a) from atk.u on conflict do nothing
update atk.t set a = atk.leave(a)
delete from atk.t where atk.leave(a) > 0
merge into atk.t using atk.u on t.a = u.a when matched then update set b = atk.leave(1)::text
insert into atk.t values (1) returning atk.leave(a)
with q as (select atk.leave(1)) insert into atk.t select 1 from q
copy (select atk.leave(1)) to stdout
create table atk.x as select atk.leave(1)
explain analyze select atk.leave(1)
explain analyze insert into atk.t values (atk.leave(1))
update pg_settings set setting = '8MB' where name = 'work_mem'
with q as (select 1) update pg_settings set setting = '8MB' where name = 'work_mem'
select pg_create_physical_replication_slot('bindings', true, true)
-- create view atk.v as select * from pg_settings
update atk.v set setting = '8MB' where name = 'work_mem'
do $$begin update atk.v set setting = '8MB' where name = 'work_mem'; end$$
-- create trigger x before insert or update or delete on atk.t for each row execute function atk.trg()
insert into atk.t values (1)
update atk.t set b = '1'
delete from atk.t
copy atk.t(a) from stdin
merge into atk.t using atk.u on t.a = u.a when matched then delete
do $$begin insert into atk.t values (1); end$$
do $$begin update only (atk.t) set b = 1; end$$
do $$begin delete from only (atk.t); end$$
do $$begin delete from only atk.t; end$$
do $$begin execute 'delete from atk.t'; end$$
with q as (delete from atk.t returning a) select * from q
explain analyze delete from atk.t
-- create trigger x after insert or update or delete or truncate on atk.t execute function atk.trg()
insert into atk.t select 1 where false
truncate atk.t
truncate atk.u, atk.t
truncate only atk.t
do $$begin truncate atk.t; end$$
do $$begin truncate table only atk.u, atk.t; end$$
copy atk.t (a) from stdin
-- create function atk.f() returns void language sql as 'truncate atk.t'; create trigger x after truncate on atk.t execute function atk.trg()
select atk.f()
-- create function atk.f() returns int language plpgsql as 'begin truncate atk.t; return 1; end'; create trigger x after truncate on atk.t execute function atk.trg()
select atk.f()
-- create function atk.f() returns int language sql as 'delete from atk.t; select 1'; create trigger x after delete on atk.t execute function atk.trg()
select atk.f()
-- create function atk.f() returns int language sql begin atomic delete from atk.t; select 1; end; create trigger x after delete on atk.t execute function atk.trg()
select atk.f()
-- create view atk.v as select a from atk.t; create trigger x instead of insert on atk.v for each row execute function atk.trg()
insert into atk.v values (1)
copy atk.v from stdin
-- create view atk.v as select a from atk.t; create trigger x before insert on atk.t for each row execute function atk.trg()
insert into atk.v values (1)
-- create table atk.p(a int) partition by range (a); create table atk.p1 partition of atk.p for values from (0) to (10); create trigger x before insert on atk.p1 for each row execute function atk.trg()
insert into atk.p values (1)
copy atk.p from stdin
-- create table atk.p(a int) partition by range (a); create trigger x after insert on atk.p for each row execute function atk.trg(); create table atk.p1 partition of atk.p for values from (0) to (10)
insert into atk.p1 values (1)
-- create table atk.c(a int references atk.t on delete cascade); insert into atk.c values (100); create trigger x before delete on atk.c for each row execute function atk.trg()
delete from atk.t
-- create table atk.c(a int default atk.leave(null) references atk.t on delete set default); insert into atk.c values (100)
delete from atk.t
truncate atk.t cascade; insert into atk.c default values
-- create table atk.c(a int references atk.t); create trigger x before truncate on atk.c execute function atk.trg()
truncate atk.t cascade
-- create rule x as on insert to atk.t do also select atk.leave(1)
insert into atk.t values (1)
-- create rule x as on delete to atk.t do instead insert into atk.u values (1); create trigger x before insert on atk.u for each row execute function atk.trg()
delete from atk.t
-- create table atk.c(a int default atk.leave(1), b int)
insert into atk.c(b) values (1)
insert into atk.c values (default, 1)
copy atk.c(b) from stdin
alter table atk.c add d int default atk.leave(1); insert into atk.c(a, b) values (1, 1)
-- create table atk.c(a int check (atk.leaveb(a)))
insert into atk.c values (1)
copy atk.c from stdin
do $$begin insert into atk.c values (1); end$$
-- create table atk.c(a int, b int generated always as (atk.leavei(a)) stored)
insert into atk.c values (1)
-- create table atk.c(a int); create index on atk.c (atk.leavei(a))
insert into atk.c values (1)
-- create table atk.c(a int); create index on atk.c (a) where atk.leavei(a) > 0
insert into atk.c values (1)
-- create domain atk.d as int check (atk.leaveb(value)); create table atk.c(a atk.d)
insert into atk.c values (1)
copy atk.c from stdin
select 1::atk.d
-- create procedure atk.p() language plpgsql as $$begin perform set_config('atk.mark', 'x', false); end$$
call atk.p()
do $$begin call atk.p(); end$$
-- create procedure atk.p(inout x int default atk.leave(1)) language sql as $$select 1$$
call atk.p()
-- create procedure atk.p() language sql as $$set atk.mark = 'x'$$
call atk.p()
-- create procedure atk.p() language plpgsql as $$begin create temp table x(a int); commit; end$$
call atk.p()
-- create function atk.f() returns int language plpgsql as $$begin create table pg_temp.x(a int); return 1; end$$
select atk.f()
-- create function atk.f() returns int language sql as $$create table pg_temp.x(a int); select 1$$
select atk.f()
-- create function atk.f() returns int language sql as $$declare c cursor with hold for select 1; select 1$$
select atk.f()
-- create function atk.f() returns int language plpgsql set search_path = pg_temp as $$begin create table x(a int); return 1; end$$
select atk.f()
-- create function atk.f() returns int language sql as $$select 1 as a into temp x; select 1$$
select atk.f()
-- create function atk.f() returns int language plpgsql as $$begin perform pg_create_physical_replication_slot('bindings', true, true); return 1; end$$
select atk.f()
-- create function atk.evt() returns event_trigger language plpgsql as $$begin perform set_config('atk.mark', 'x', false); end$$; create event trigger bindings on ddl_command_end execute function atk.evt()
create table atk.x(a int)
create table atk.x as select 1
select 1 as a into atk.x
alter table atk.t add c int
comment on table atk.t is 'x'
drop table atk.u
grant select on atk.t to public
create index on atk.t (b)
do $$begin create table atk.x(a int); end$$
do $$begin comment on table atk.t is 'x'; end$$
-- create materialized view atk.m as select pg_try_advisory_lock_shared(4242) as l, 1 as a
refresh materialized view atk.m
do $$begin refresh materialized view atk.m; end$$
-- create table atk.c(a int); insert into atk.c values (1); alter table atk.c add constraint k check (pg_try_advisory_lock_shared(a)) not valid
alter table atk.c validate constraint k
insert into atk.c values (4242)
-- create type atk.ct as (x int); create function atk.add(atk.ct, atk.ct) returns int language plpgsql as $$begin perform set_config('atk.mark', 'x', false); return 1; end$$; create operator atk.+ (leftarg = atk.ct, rightarg = atk.ct, function = atk.add)
select row(1)::atk.ct operator(atk.+) row(1)::atk.ct
insert into atk.t values (row(1)::atk.ct operator(atk.+) row(1)::atk.ct)
-- create aggregate atk.agg(int) (sfunc = int4pl, stype = int, finalfunc = atk.leave)
select atk.agg(a) from atk.u
insert into atk.t select atk.agg(a) - 1 from atk.u
-- create view atk.v as select atk.leave(1) as a
select * from atk.v
insert into atk.t select * from atk.v
-- alter table atk.t enable row level security; alter table atk.t force row level security; create policy p on atk.t using (true) with check (atk.leaveb(a)); alter schema atk owner to plain; alter table atk.t owner to plain
set role plain; insert into atk.t values (1); reset role
-- create extension pg_trgm
select set_limit(0.5)
-- create extension pg_trgm; create function atk.f() returns real language sql as 'select set_limit(0.5)'
select atk.f()

--> free
-- select 1
select 1
do $$begin perform set_config('atk.mark', 'x', true); end$$
do $$begin set local atk.mark = 'x'; end$$
do $$begin perform pg_advisory_xact_lock(4242); end$$
do $$begin insert into atk.t values (1); end$$
do $$begin truncate atk.t; end$$
do $$begin create table atk.x(a int); end$$
do $$begin set constraints all immediate; end$$
do $$begin execute 'delete from atk.t'; end$$
do $$declare c cursor for select 1; begin open c; close c; end$$
insert into atk.t values (1)
update atk.t set b = 'set_config'
delete from atk.t
truncate atk.t, atk.u
copy atk.t(a) from stdin
create table atk.x(a int)
create table atk.x as select 1
select 1 as a into atk.x
select pg_advisory_xact_lock(4242)
select E'x\\n', U&"a" from atk.u
comment on table atk.t is 'pg_temp'
explain insert into atk.t values (atk.leave(1))
-- create trigger x before insert or update or delete or truncate on atk.t execute function atk.quiet()
insert into atk.t values (1)
copy atk.t(a) from stdin
truncate atk.t
-- create trigger x before insert on atk.t for each row execute function atk.trg(); alter table atk.t disable trigger x
insert into atk.t values (1)
copy atk.t(a) from stdin
-- create table atk.c(a int check (a > 0), b int default 5)
insert into atk.c values (1)
-- create trigger x before insert on atk.t for each row execute function atk.trg()
insert into atk.u values (1)
copy atk.u from stdin
truncate atk.u
-- create materialized view atk.m as select 1 as a
refresh materialized view atk.m
