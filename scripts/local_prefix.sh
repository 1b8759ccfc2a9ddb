#!/bin/sh
# Print the folder that the local stack lives in: `local` in the checkout. Root's services run as a user of their
# own; where that user cannot reach the checkout (/root is closed to others), it is a folder under /var/lib,
# named by the checkout's path.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd -P)
if [ "$(id -u)" = 0 ] && namei --modes "$checkout" | grep -q '^ d........[^xst]'; then
    echo "/var/lib/chroma-stack-local-$(printf %s "$checkout" | cksum | cut -d ' ' -f 1)"
else
    echo "$checkout/local"
fi
