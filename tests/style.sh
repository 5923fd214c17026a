#!/bin/sh
# The house rules that a program can check. Prints what breaks one, then
# "style: N passed, N failed"; exit 1 when a rule is broken.
set -u
cd "$(dirname "$0")/.." || exit 1

sources=$(find shared fcgi dispatcher tests -name '*.[ch]' | sort)
product=$(printf '%s\n' "$sources" | grep -v '^tests/')
passed=0
failed=0

# rule NAME COMMAND...: COMMAND prints each offence, and nothing if all is well.
rule()
{
    rule_name=$1
    shift
    rule_offences=$("$@" 2>&1)
    if [ -z "$rule_offences" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf '%s:\n%s\n\n' "$rule_name" "$rule_offences"
    fi
}

formatting()
{
    for file in $sources; do
        clang-format "$file" | cmp -s - "$file" || echo "$file"
    done
}

# includes PATTERN FILE...: "file:line:#include ..." of our own headers that
# match; a header's or source's own name is always allowed.
includes()
{
    includes_pattern=$1
    shift
    grep -nE "^#include \"($includes_pattern)" "$@" /dev/null |
        awk -F: '{
            own = $1; sub(/\.[ch]$/, ".h", own)
            if (index($3, "\"" own "\"") == 0) print
        }'
}

# STYLE 21: the two sides meet only in shared/.
sides()
{
    # shellcheck disable=SC2046 # the file names are words
    includes '(fcgi|dispatcher|tests)/' \
        $(printf '%s\n' "$product" | grep '^shared/')
    # shellcheck disable=SC2046
    includes '(dispatcher|tests)/' $(printf '%s\n' "$product" | grep '^fcgi/')
    # shellcheck disable=SC2046
    includes '(fcgi|tests)/' $(printf '%s\n' "$product" | grep '^dispatcher/')
    # shellcheck disable=SC2086
    grep -nE '^#include "' $product | grep -vE '"(shared|fcgi|dispatcher)/'
}

# STYLE 21: main -> services -> engines -> transfers, queue. The files of one
# engine share its name up to the underscore.
floors()
{
    services='call|sms|callback|invitation'
    for engine in limiter batcher fetcher poster store feed; do
        others=$(printf 'limiter|batcher|fetcher|poster|store|feed' |
            sed "s/$engine//; s/||/|/; s/^|//; s/|\$//")
        for file in $(printf '%s\n' "$product" |
            grep -E "^dispatcher/$engine[_.]"); do
            includes "dispatcher/(($others)[_.]|($services)[_.]|main\.)" "$file"
        done
    done
    for file in $(printf '%s\n' "$product" | grep '^dispatcher/queue\.'); do
        includes 'dispatcher/' "$file"
    done
    for file in $(printf '%s\n' "$product" |
        grep '^dispatcher/transfers[_.]'); do
        includes 'dispatcher/' "$file" | grep -v '"dispatcher/transfers[_.]'
    done
}

# STYLE 22: header and the files that may include it.
homes()
{
    # shellcheck disable=SC2086 # the file names are words
    while read -r header home; do
        grep -nE "^#include <($header)" $product | grep -vE "^($home)"
    done <<'EOF'
zmq shared/push\.|dispatcher/feed
cjson/|cJSON shared/report\.
fcgi fcgi/edge
curl/ dispatcher/(transfers[_.]|smtp\.)
idn2 shared/address\.
uni(case|norm|str) shared/address\.
libpq-fe shared/pg\.|dispatcher/store_pg\.
openssl/ shared/hash\.
mongoc dispatcher/mongo\.
bson dispatcher/(mongo\.|[a-z]*_mongo\.)
sqlite3 shared/journal
EOF
}

# STYLE 19.
forbidden()
{
    # shellcheck disable=SC2086 # the file names are words
    grep -nE '\b(sprintf|strcpy|strcat|strtok|atoi) ?\(|fcgi_stdio\.h' $sources
}

# STYLE 29: the condition ends, and what follows is a brace.
braces()
{
    # shellcheck disable=SC2086 # the file names are words
    awk '
    function flush_if(rest) {
        if (rest !~ /\{[^}]*$/ && rest !~ /\\$/)
            print FILENAME ":" start ": no brace"
        open = 0; watching = 0
    }
    FNR == 1 { watching = 0 }
    /^[[:space:]]*#/ { next }
    !watching && /^[[:space:]]*(\} )?(else )?(if|for|while) \(/ {
        watching = 1; start = FNR; open = 0; seen = 0
        if ($0 ~ /^[[:space:]]*\} while/) { watching = 0 }
    }
    !watching && /^[[:space:]]*(\} )?else$/ {
        print FILENAME ":" FNR ": no brace"
    }
    watching {
        line = $0
        gsub(/"([^"\\]|\\.)*"/, "s", line)
        gsub(/'"'"'([^'"'"'\\]|\\.)*'"'"'/, "c", line)
        gsub(/\/\*.*/, "", line)
        for (i = 1; i <= length(line); i++) {
            c = substr(line, i, 1)
            if (c == "(") { open++; seen = 1 }
            if (c == ")") open--
            if (seen && open == 0) { flush_if(substr(line, i + 1)); break }
        }
    }' $sources
}

# STYLE 18, as a warning: a long function may be the better one.
long_functions()
{
    # shellcheck disable=SC2086 # the file names are words
    awk '
    /^[a-z_]+\(/ { name = $0; sub(/\(.*/, "", name) }
    /^\{$/ { start = FNR }
    /^\}$/ && FNR - start > 61 {
        print FILENAME ":" start ": warning: " name " has " FNR - start - 1 \
            " lines"
    }' $product
}

shell_syntax()
{
    for script in quickstart check bootstrap conf/sh/*.sh tests/*.sh \
        conf/ferretdb/build.sh tests/e2e/axe/install.sh; do
        sh -n "$script"
    done
}

# Each file is in the local.mk of its folder or of one above, or the tarball
# lacks it.
listed()
{
    find shared fcgi dispatcher conf tests -type f ! -name '*.pyc' \
        ! -name local.mk ! -path 'tests/fuzz/corpus/*' | while read -r file; do
        folder=$(dirname "$file")
        until [ "$folder" = . ]; do
            if [ -f "$folder/local.mk" ] &&
                grep -qE "%D%/${file#"$folder"/}([[:space:]]|$)" \
                    "$folder/local.mk"; then
                continue 2
            fi
            folder=$(dirname "$folder")
        done
        case $file in
        *test_*.c) grep -qE "%D%/$(basename "$file" .c)([[:space:]]|$)" \
            "$(dirname "$file")/local.mk" && continue ;;
        esac
        echo "$file"
    done
}

no_machine_paths()
{
    # shellcheck disable=SC2086 # the file names are words
    grep -nE '"/(home|root|work)/' $sources
}

rule 'clang-format' formatting
rule 'STYLE 21: dependencies point one way' sides
rule 'STYLE 21: main -> services -> engines -> queue' floors
rule 'STYLE 22: one third-party header, one home' homes
rule 'STYLE 19: not used' forbidden
rule 'STYLE 29: braces always' braces
rule 'listed in a local.mk' listed
rule 'shell syntax' shell_syntax
rule 'no path of one machine' no_machine_paths
long_functions
echo "style: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
