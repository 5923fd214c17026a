#!/bin/sh
# fill.sh TEMPLATE NAME=VALUE...: print TEMPLATE with each @NAME@ replaced.
# Fails when a placeholder is left. (The tests do the same in Python.)
set -eu
text=$(cat "$1")
shift
for pair in "$@"; do
    # In sed's replacement these three are special.
    value=$(printf '%s\n' "${pair#*=}" | sed 's/[\\&|]/\\&/g')
    text=$(printf '%s\n' "$text" | sed "s|@${pair%%=*}@|$value|g")
done
if left=$(printf '%s\n' "$text" | grep -o '@[A-Z_]*@'); then
    echo "fill.sh: no value for" $left >&2
    exit 1
fi
printf '%s\n' "$text"
