#!/bin/sh
# install.sh FOLDER: put axe-core, as package-lock.json names it, into FOLDER.
set -eu
source_dir=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
cp -f "$source_dir/package.json" "$source_dir/package-lock.json" .
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
test -s node_modules/axe-core/axe.min.js
