#!/bin/sh
# fuzz.sh: build the harnesses with clang in ./build-fuzz, and run each for
# FUZZ_SECONDS (10) on its seed corpus. New inputs are kept in the build;
# a crash leaves its input there and fails the run.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd -P)
seconds=${FUZZ_SECONDS:-10}
mkdir -p build-fuzz
cd build-fuzz

[ -f config.status ] ||
    "$top/configure" -q CC=clang CFLAGS='-g -O1' --enable-fuzzers
make -s -j "$(nproc)" fuzzers

passed=0
failed=0
for harness in "$top"/tests/fuzz/fuzz_*.c; do
    name=$(basename "$harness" .c)
    mkdir -p "corpus/$name"
    if "tests/fuzz/$name" -max_total_time="$seconds" -timeout=5 \
        -rss_limit_mb=2048 -print_final_stats=1 \
        "corpus/$name" "$top/tests/fuzz/corpus/${name#fuzz_}" \
        >"$name.log" 2>&1; then
        passed=$((passed + 1))
        sed -n "s/stat::number_of_executed_units:/$name:/p" "$name.log"
    else
        failed=$((failed + 1))
        tail -n 30 "$name.log"
    fi
done
echo "fuzz: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
