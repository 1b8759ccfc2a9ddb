#!/bin/sh
# End supervisord of the local stack and everything that it started, each by its own stop signal, and wait for it.
# Usage: scripts/stop_local.sh PREFIX    (make stop calls it)
set -eu

prefix=${1:?usage: scripts/stop_local.sh PREFIX}
socket=$prefix/run/chroma-stack.sock
config=$prefix/etc/chroma-stack/supervisor/supervisord.conf
pidfile=$prefix/var/lib/chroma-stack/supervisor/supervisord.pid
control=$prefix/opt/chroma-stack/supervisor/bin/supervisorctl
# Longer than the longest stop_wait of a process: nothing is killed that still writes.
patience=90

# The processes of this stack: supervisord gives each child the socket's name in its environment.
children() {
    for environment in /proc/[0-9]*/environ; do
        if tr '\0' '\n' 2>/dev/null <"$environment" | grep -Fqx "SUPERVISOR_SERVER_URL=unix://$socket"; then
            pid=${environment#/proc/}
            echo "${pid%/environ}"
        fi
    done 2>/dev/null
}

supervisor() {
    pid=$(cat "$pidfile" 2>/dev/null) || return 0
    if tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -Fq "$config"; then echo "$pid"; fi
}

wait_for() { # until FUNCTION names no process any more
    left=$((patience * 5))
    while [ -n "$("$1")" ]; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then return 1; fi
        sleep 0.2
    done
}

pid=$(supervisor)
if [ -n "$pid" ]; then
    names=$("$control" -c "$config" status | awk '$2 == "RUNNING" {printf " %s", $1}') || true
    if [ ! -r "/proc/$pid/environ" ]; then
        echo "stop: supervisord ($pid) belongs to $(stat -c %U "/proc/$pid"); run make stop as that user" >&2
        exit 3
    fi
    "$control" -c "$config" shutdown >/dev/null 2>&1 || kill -TERM "$pid"
    if ! wait_for supervisor; then
        echo "stop: supervisord ($pid) still runs after $patience s; see $prefix/var/log/chroma-stack/supervisord.log" >&2
        exit 1
    fi
    echo "Stopped supervisord and${names:- nothing beside it}."
fi

# Children that outlived a supervisord which was killed; the kernel told them to stop, some may still be at it.
orphans=$(children)
if [ -n "$orphans" ]; then
    # shellcheck disable=SC2086 # a list of process ids
    kill -TERM $orphans 2>/dev/null || true
    if ! wait_for children; then
        echo "stop: still running after $patience s: $(children | tr '\n' ' ')" >&2
        exit 1
    fi
    echo "Stopped what an earlier supervisord had left:" $orphans
elif [ -z "$pid" ]; then
    echo "Nothing of $prefix runs."
fi
