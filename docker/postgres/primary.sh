#!/bin/sh
# Runs a primary, and makes it first where PGDATA is empty. PostgreSQL's programs are on PATH.
#   PGDATA  POSTGRES_PASSWORD  REPLICATION_PASSWORD  APP_DATABASE  APP_PASSWORD
# The application's user is named like its database. Arguments are postgres's own.
set -eu
: "${PGDATA:?}" "${POSTGRES_PASSWORD:?}" "${REPLICATION_PASSWORD:?}"
: "${APP_DATABASE:?}" "${APP_PASSWORD:?}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Beside its place until it is whole: a start that was interrupted begins anew.
    fresh=$PGDATA.new
    rm -rf "$fresh"
    umask 077
    initdb --pgdata="$fresh" --username=postgres --encoding=UTF8 --locale=C \
        --auth=scram-sha-256 --pwfile=/dev/stdin <<PASSWORD
$POSTGRES_PASSWORD
PASSWORD

    cat >>"$fresh/postgresql.conf" <<'SETTINGS'
listen_addresses = '*'
hot_standby = on
wal_level = replica
# A replica that is gone for good must not fill the primary's disk through its slot.
max_slot_wal_keep_size = '1GB'
SETTINGS
    cat >>"$fresh/pg_hba.conf" <<'RULES'
host  replication  replicator  samenet  scram-sha-256
host  all          all         samenet  scram-sha-256
RULES

    # Nobody but this script can reach it yet: no TCP, and a socket that only we may open.
    pg_ctl start --pgdata="$fresh" --wait --silent --log="$fresh/first.log" \
        --options="-c listen_addresses='' -c unix_socket_directories='$fresh'"
    # Passwords come from the environment, never from a command line that `ps` shows.
    PGPASSWORD=$POSTGRES_PASSWORD psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 \
        --host="$fresh" --username=postgres --dbname=postgres <<'SQL'
\getenv replication REPLICATION_PASSWORD
\getenv app APP_DATABASE
\getenv password APP_PASSWORD
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replication';
CREATE ROLE :"app" LOGIN PASSWORD :'password';
CREATE DATABASE :"app" OWNER :"app";
SQL
    pg_ctl stop --pgdata="$fresh" --wait --silent --mode=fast
    rm "$fresh/first.log"
    if [ -d "$PGDATA" ]; then rmdir "$PGDATA"; fi
    mv "$fresh" "$PGDATA"
fi

exec postgres -D "$PGDATA" -c cluster_name=primary "$@"
