#!/bin/sh
# Runs a streaming replica, and copies it from its primary first where PGDATA is empty.
#   PGDATA  REPLICATION_PASSWORD  REPLICA_NAME  PRIMARY_HOST  PRIMARY_PORT (5432)
# The name is the slot's as well. Arguments are postgres's own.
set -eu
: "${PGDATA:?}" "${REPLICATION_PASSWORD:?}" "${REPLICA_NAME:?}" "${PRIMARY_HOST:?}"

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    export PGHOST="$PRIMARY_HOST" PGPORT="${PRIMARY_PORT:-5432}" PGUSER=replicator
    export PGPASSWORD="$REPLICATION_PASSWORD" PGCONNECT_TIMEOUT=5
    left=120
    until pg_isready --quiet; do
        left=$((left - 1))
        if [ "$left" -eq 0 ]; then
            echo "replica.sh: $PGHOST:$PGPORT does not answer: is the primary running?" >&2
            exit 1
        fi
        sleep 0.5
    done

    # The slot stays when a replica is thrown away and made again.
    psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres --output=/dev/null <<'SQL'
\getenv name REPLICA_NAME
SELECT pg_create_physical_replication_slot(:'name', true)
 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = :'name');
SQL

    fresh=$PGDATA.new
    rm -rf "$fresh"
    umask 077
    # -R writes where to stream from, with the password, into a file that only we may read.
    pg_basebackup --pgdata="$fresh" --slot="$REPLICA_NAME" --checkpoint=fast \
        --write-recovery-conf --no-password
    if [ -d "$PGDATA" ]; then rmdir "$PGDATA"; fi
    mv "$fresh" "$PGDATA"
    unset PGHOST PGPORT PGUSER PGPASSWORD PGCONNECT_TIMEOUT
fi

exec postgres -D "$PGDATA" -c cluster_name="$REPLICA_NAME" "$@"
