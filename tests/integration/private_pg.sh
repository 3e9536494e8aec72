#!/bin/sh
# A PostgreSQL of one's own for a test: on a Unix socket in DIR, no TCP, never the system's.
#
#   private_pg.sh start DIR [SETTING=VALUE]...   initdb when DIR is new, start, print a connection string
#   private_pg.sh stop DIR                       shut down, waiting for the end
#   private_pg.sh crash DIR                      stop as if killed: recovery at the next start
#   private_pg.sh url DIR                        print the connection string
#
# The caller makes and removes DIR (a short path: socket names end at 107 characters). fsync is off
# unless set: `start DIR fsync=on`. As root, the server runs as user postgres. Exit 77: PostgreSQL is not
# installed.
set -eu

fail() {
    echo "private_pg.sh: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: private_pg.sh start|stop|crash|url DIR [SETTING=VALUE]..."
action=$1
dir=$2
shift 2

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
if [ -z "$bin" ] && command -v initdb >/dev/null; then
    bin=$(dirname "$(command -v initdb)")
fi
[ -n "$bin" ] || { echo "private_pg.sh: PostgreSQL is not installed" >&2; exit 77; }

as_server() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups "$@")
    else
        (cd / && exec "$@")
    fi
}

case $action in
start)
    [ "$(id -u)" != 0 ] || chown postgres "$dir"
    if [ ! -d "$dir/data" ]; then
        as_server "$bin/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C --no-sync \
            >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; fail "initdb failed"; }
        [ "$(id -u)" != 0 ] || chown postgres "$dir/initdb.log"
    fi
    settings="-c listen_addresses='' -c unix_socket_directories='$dir' -c fsync=off"
    settings="$settings -c max_connections=50 -c shared_buffers=64MB"
    for setting in "$@"; do
        settings="$settings -c $setting"
    done
    as_server "$bin/pg_ctl" -D "$dir/data" -s -w -t 60 -l "$dir/log" -o "$settings" start >/dev/null ||
        { cat "$dir/log" >&2; fail "start failed"; }
    echo "host=$dir user=postgres dbname=postgres"
    ;;
stop)
    as_server "$bin/pg_ctl" -D "$dir/data" -s -w -t 60 -m fast stop
    ;;
crash)
    as_server "$bin/pg_ctl" -D "$dir/data" -s -w -t 60 -m immediate stop
    ;;
url)
    echo "host=$dir user=postgres dbname=postgres"
    ;;
*)
    fail "unknown action $action"
    ;;
esac
