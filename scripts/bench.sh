#!/usr/bin/env bash
# Runs the benchmarks on servers of their own, and writes BENCHMARKS.md and docs/bench.
#
#   scripts/bench.sh            everything, in about twenty minutes after the build
#   scripts/bench.sh reach [--write | OPERATION]
#                               only the first table, in some minutes: prints it; --write puts it into BENCHMARKS.md,
#                               and OPERATION (`get/64`, `mget`) measures a part of it
#   scripts/bench.sh fleet [--write]
#                               only what two processes make of one value that they refresh, in two minutes; fails where
#                               a count breaks its bound; --write puts the table into BENCHMARKS.md
#   scripts/bench.sh limits [--write]
#                               only what rate limits admit at most: under the worst arrivals in virtual time, and on a
#                               server; fails where a bound is broken; --write puts the tables into docs/rate-limits.md
#                               and BENCHMARKS.md, and draws docs/rate-limits.svg
#   scripts/bench.sh NAME..     only clients, allocations, helpers, growth, memory, steps, layers or suites; prints rows,
#                               writes nothing. steps: what a rate limit costs the server over a fixed window, in half a
#                               minute; layers: what the HTTP layers cost without the store
#   scripts/bench.sh --short    each once and briefly, unoptimised: shows only that they still work
set -euo pipefail
cd "$(dirname "$0")/.."

servers=$(scripts/install-valkey.sh)
eval "$servers"
export VALKEY_SERVER

rows=$(mktemp -d)/rows.jsonl
trap 'rm -rf "$(dirname "$rows")"' EXIT

# In short nothing is measured, so what the tests have built does: a member alone has other features of its
# dependencies, and all of them would be compiled again.
short=
if [ "${1:-}" = --short ]; then short=1; fi

bench() {
    local name=$1 package=derp-kv-valkey
    shift
    local features=()
    case $name in
        memory) package=derp-kv-memory ;;
        layers) package=derp-kv-core features=(--features tower) ;;
    esac
    if [ -n "$short" ]; then
        cargo bench --quiet --locked --workspace --profile dev --bench "$name" "$@"
    else
        cargo bench --quiet --locked --package "$package" "${features[@]}" --bench "$name" "$@"
    fi
}

# The whole conformance suite on one store, as `cargo test` runs it: SUBJECT TARGET [FILTER..]
suite() {
    local subject=$1 target=$2 output line
    shift 2
    output=$(cargo test --quiet --locked --workspace --test "$target" -- "$@") || {
        printf '%s\n' "$output" >&2
        return 1
    }
    line=$(grep '^test result: ok' <<<"$output")
    sed -E "s/.* ([0-9]+) passed.* finished in ([0-9.]+)s.*/{\"suite\":\"conformance\",\"bench\":\"whole suite\",\"subject\":\"$subject\",\"laws\":\1,\"seconds\":\2}/" \
        <<<"$line" | tee -a "$rows"
}

suites() {
    cargo test --quiet --locked --workspace --no-run
    suite 'memory, unbounded' conformance unbounded::
    suite 'memory, bounded' conformance bounded:: --skip unbounded::
    suite 'memory, Prefixed' conformance prefixed::
    suite 'naive reference' naive
    suite 'redb' redb_conformance
    suite 'Valkey 8' conformance_standalone
    suite 'Valkey 8, TLS and ACL' conformance_tls
    suite 'Valkey 8, cluster' conformance_cluster
    local VALKEY_SERVER=$VALKEY_9_SERVER
    suite 'Valkey 9' conformance_standalone
    suite 'Valkey 9, cluster' conformance_cluster
}

# The Python interpreter with valkey-glide, or nothing where that does not install: its line is left out then.
glide() {
    local venv=target/glide
    if ! "$venv/bin/python" -c 'import glide' 2>/dev/null; then
        { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes \
            --requirement scripts/glide.txt; } >&2 || {
            echo "valkey-glide does not install here: it is left out" >&2
            return 0
        }
    fi
    echo "$PWD/$venv/bin/python"
}

# The rows of the first table, of the cases whose name begins with the argument.
reach() {
    local python
    python=$(glide)
    GLIDE_PYTHON=$python bench reach -- --only "reach/${1:-}" --out "$rows"
    bench allocations -- --only reach/get/ --out "$rows"
}

# A program of the examples.
program() {
    local name=$1
    shift
    if [ -n "$short" ]; then
        "${CARGO_TARGET_DIR:-target}/debug/$name" "$@"
    else
        cargo run --quiet --locked --package derp-kv-examples --bin "$name" -- "$@"
    fi
}

report() {
    program bench_report "$@"
}

# What rate limits admit at most under the worst arrivals, in virtual time.
bounds() {
    program limits "$@"
}

# What differs on Valkey 9: its own tables.
clients_9() {
    for name in clients allocations; do
        VALKEY_SERVER=$VALKEY_9_SERVER bench "$name" -- --only /64/64 --out "$rows.9"
    done
    sed -E 's/"suite":"(clients|cluster)"/"suite":"\1-9"/' "$rows.9" >>"$rows"
}

all=(reach clients allocations helpers fleet limits growth memory steps layers)
case ${1:-} in
    --short)
        cargo test --quiet --locked --workspace --no-run
        for name in "${all[@]}"; do
            bench "$name" -- --short --out "$rows" >/dev/null
        done
        bounds --short
        report "$rows" "$(dirname "$rows")"
        for section in 'At a glance' Reach Budgets 'Refreshes in a fleet' 'Rate limits'; do grep -q "^## $section" "$(dirname "$rows")/BENCHMARKS.md"; done
        ;;
    '')
        for name in "${all[@]}"; do bench "$name" --no-run; done
        suites
        GLIDE_PYTHON=$(glide)
        export GLIDE_PYTHON
        for name in "${all[@]}"; do bench "$name" -- --out "$rows"; done
        bounds --write .
        clients_9
        VALKEY_9_SERVER=$VALKEY_9_SERVER report "$rows" .
        ;;
    reach)
        # Part of the table must not take the place of the whole.
        if [ "${2:-}" = --write ]; then only=''; else only=${2:-}; fi
        reach "$only" >&2
        report --reach "$rows"
        # The first screen of the page, and the table in the README, follow.
        if [ "${2:-}" = --write ]; then report --reach "$rows" .; fi
        ;;
    fleet)
        bench fleet -- --out "$rows"
        if [ "${2:-}" = --write ]; then report --fleet "$rows" .; fi
        ;;
    limits)
        if [ "${2:-}" = --write ]; then bounds --write .; else bounds; fi
        bench limits -- --out "$rows"
        if [ "${2:-}" = --write ]; then report --limits "$rows" .; fi
        ;;
    *)
        for name in "$@"; do
            if [ "$name" = suites ]; then suites; else bench "$name"; fi
        done
        ;;
esac
