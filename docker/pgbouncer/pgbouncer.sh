#!/bin/sh
# Runs PgBouncer, pooling by transaction, before a primary and its replicas.
#   CONFIG (a directory of its own)  APP_DATABASE  APP_PASSWORD
#   PRIMARY (host:port)  REPLICAS (host:port, separated by blanks)  LISTEN (*)  PORT (6432)
# The primary's database keeps its name; a replica's is NAME_replica1, NAME_replica2 and so on.
set -eu
: "${CONFIG:?}" "${APP_DATABASE:?}" "${APP_PASSWORD:?}" "${PRIMARY:?}" "${REPLICAS:?}"

entry() {
    echo "$1 = host=${2%:*} port=${2##*:} dbname=$APP_DATABASE"
}

umask 077
{
    echo "[databases]"
    entry "$APP_DATABASE" "$PRIMARY"
    number=1
    for replica in $REPLICAS; do
        entry "${APP_DATABASE}_replica$number" "$replica"
        number=$((number + 1))
    done
    cat <<SETTINGS
[pgbouncer]
listen_addr = ${LISTEN:-*}
listen_port = ${PORT:-6432}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $CONFIG/userlist.txt
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
; the console, for the command pg-router status
stats_users = $APP_DATABASE
; drivers send it, and a pooled session has no use for it
ignore_startup_parameters = extra_float_digits
SETTINGS
} >"$CONFIG/pgbouncer.ini"
printf '"%s" "%s"\n' "$APP_DATABASE" "$APP_PASSWORD" >"$CONFIG/userlist.txt"

exec "${PGBOUNCER:-pgbouncer}" "$CONFIG/pgbouncer.ini"
