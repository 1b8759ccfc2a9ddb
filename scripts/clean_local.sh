#!/bin/sh
# Stop the local stack, then remove its folders, and the prefix itself where nothing else is in it.
# Usage: scripts/clean_local.sh PREFIX    (make clean calls it)
set -eu

prefix=${1:?usage: scripts/clean_local.sh PREFIX}
case $prefix in
    /) echo "clean: $prefix is the whole machine, not the prefix of a local stack" >&2 && exit 2 ;;
    /*) ;;
    *) echo "clean: $prefix: give the prefix as an absolute path" >&2 && exit 2 ;;
esac

"$(dirname "$0")/stop_local.sh" "$prefix"
for folder in opt etc var/lib var/log var/backups; do
    rm -rf "$prefix/$folder/chroma-stack"
done
for folder in opt etc run var/lib var/log var/backups var .; do
    rmdir "$prefix/$folder" 2>/dev/null || true
done
rmdir "$prefix" 2>/dev/null || true
if [ -e "$prefix" ]; then
    echo "Left what is not the stack's in $prefix:" "$(ls -A "$prefix")"
fi
