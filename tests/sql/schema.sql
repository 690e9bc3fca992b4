-- What the statements of statements.py speak of, on a real server.
create schema audit;
create table users (id int primary key, name text, email text, active bool, tags text[],
    data jsonb, manager int, created_at timestamptz default now());
create table orders (id int primary key, user_id int, total numeric, placed date);
insert into users select i, 'n' || i, 'e' || i, true, '{a,b}', '{"a": {"b": 1}}', null
    from generate_series(1, 20) i;
insert into orders select i, i % 20, i, '2024-01-01' from generate_series(1, 50) i;
create table events (at date not null) partition by range (at);
create table events_2024 partition of events for values from ('2024-01-01') to ('2025-01-01');
create table metrics (at date not null) partition by range (at);
create unlogged table metrics_2024 partition of metrics
    for values from ('2024-01-01') to ('2025-01-01');
create unlogged table cache_entries (k text, v text);
create view active_users as select * from users where active;
create materialized view totals as select user_id, sum(total) from orders group by 1;
create sequence tickets;
create sequence audit."Odd Seq";
select nextval('tickets'), nextval('audit."Odd Seq"');
create view last_ticket as select last_value from tickets;
create function ticket() returns bigint language sql stable as 'select last_value from tickets';
create function odd_ticket() returns bigint language plpgsql stable as
    $$begin return (select last_value from audit."Odd Seq"); end$$;
create function any_ticket() returns bigint language plpgsql stable as
    $$begin return (select max(last_value) from pg_sequences); end$$;
create type mood as enum ('sad', 'happy');
create type pair as (a int, b int);

create function add_one(int) returns int language sql immutable as 'select $1 + 1';
create function peek(int) returns text language plpgsql stable as
    $$begin return (select name from users where id = $1); end$$;
create function touch(int) returns int language plpgsql as
    $$begin update users set active = true where id = $1; return 1; end$$;
create function audit.log(text) returns int language sql as
    $$update users set active = true where name = $1 returning id$$;
create function sly_lock(int) returns int language sql stable as
    'select pg_advisory_lock($1); select 1';
create function sly_try(int) returns bool language plpgsql stable as
    $$begin /* not a lock */ return pg_try_advisory_lock($1); end$$;
create function outer_sly(int) returns int language plpgsql stable as
    $$begin return public.sly_lock($1); end$$;
create function dynamic(text) returns int language plpgsql stable as
    $$declare n int; begin execute $1 into n; return n; end$$;
create function quoted_words() returns text language plpgsql stable as
    $$begin return 'nextval execute pg_advisory_lock'; end$$;
create function total(int) returns int language sql stable as 'select $1';
create function total(int, int) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create function fallback(int, int default 2) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create function many(variadic int[]) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create function users_of(int) returns setof users language sql stable
    begin atomic; select * from users where id = $1; end;
create function atomic_sly() returns bool language sql stable
    begin atomic; select pg_try_advisory_lock(1); end;
create function next_to(id int) returns int language sql stable return id + 1;
create function sly_return() returns bool language sql stable return pg_try_advisory_lock(1);
create function set_tenant(text) returns text language plpgsql as
    $$begin return set_config('app.tenant', $1, false); end$$;
create function make_temp() returns void language plpgsql as
    $$begin create temp table if not exists scratch (a int); end$$;
create function loud(users) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create function "Odd Name"() returns int language sql volatile as
    'select nextval(''tickets'')::int';
create function mood_number(mood) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create cast (mood as int) with function mood_number(mood);
create function vol_eq(int, text) returns bool language sql volatile as
    'select nextval(''tickets'') > 0';
create function twice(int) returns int language sql as 'select $1 * 2';
create function tidy(text) returns text language plpgsql as
    $$declare t text := trim($1); begin return lower(t); end$$;
create function fine_eq(int, text) returns bool language sql immutable as 'select true';
create operator === (leftarg = int, rightarg = text, function = vol_eq);
create operator ==~ (leftarg = int, rightarg = text, function = fine_eq);
create function step(int, int) returns int language sql immutable as 'select $1 + $2';
create function bad_step(int, int) returns int language sql volatile as
    'select nextval(''tickets'')::int';
create aggregate add_up(int) (sfunc = step, stype = int, initcond = '0');
create aggregate bad_up(int) (sfunc = bad_step, stype = int, initcond = '0');
create domain email as text check (value ~ '@');
create domain watched as int check (sly_lock(value) = 1);
create domain watched_too as watched;

create view locked_users as select id, pg_try_advisory_lock(id) as locked from users;
create view nested_locked as select id from locked_users;
create view sly_view as select id from users where outer_sly(id) = 1;
create view touched as select touch(id) from users;
create view over_cache as select k from cache_entries;
create table tenants (id int, tenant text);
alter table tenants enable row level security;
create policy mine on tenants using (tenant = current_setting('app.tenant', true));
create table guarded (id int);
alter table guarded enable row level security;
create policy watch on guarded using (sly_try(id));
create table parent (id int);
create unlogged table child () inherits (parent);
create extension if not exists hstore;
create extension if not exists citext;
create extension if not exists file_fdw;
create extension if not exists dblink;
create extension if not exists pg_trgm;
create server files foreign data wrapper file_fdw;
create foreign table remote_log (line text) server files options (filename '/etc/hostname');

create view busy as select pid, name from pg_locks, users;
create view busier as select * from busy;
create function me() returns int language plpgsql stable as $$begin return pg_backend_pid(); end$$;
create function mine() returns int language internal stable as 'pg_backend_pid';
create function read_only() returns text language plpgsql stable as
    $$begin return current_setting('transaction_read_only'); end$$;
create function blockers(int) returns int[] language sql stable as 'select pg_blocking_pids($1)';
create operator ~~~ (rightarg = int, function = blockers);
