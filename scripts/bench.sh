#!/usr/bin/env bash
# Runs the benchmarks on servers of their own, and writes BENCHMARKS.md and docs/bench.
#
#   scripts/bench.sh            everything, in about six minutes after the build
#   scripts/bench.sh NAME..     only clients, allocations, helpers, growth or memory; prints rows, writes nothing
#   scripts/bench.sh --short    each once and briefly, unoptimised: shows only that they still work
set -euo pipefail
cd "$(dirname "$0")/.."

rows=$(mktemp -d)/rows.jsonl
trap 'rm -rf "$(dirname "$rows")"' EXIT

bench() {
    local name=$1 package=derp-kv-valkey
    shift
    if [ "$name" = memory ]; then package=derp-kv-memory; fi
    cargo bench --quiet --locked --package "$package" --bench "$name" "$@"
}

all=(clients allocations helpers growth memory)
case ${1:-} in
    --short)
        for name in "${all[@]}"; do
            bench "$name" --profile dev -- --short --out "$rows" >/dev/null
        done
        cargo run --quiet --locked --package derp-kv-examples --bin bench_report -- "$rows" "$(dirname "$rows")"
        grep -q '^## Budgets' "$(dirname "$rows")/BENCHMARKS.md"
        ;;
    '')
        for name in "${all[@]}"; do bench "$name" --no-run; done
        for name in "${all[@]}"; do bench "$name" -- --out "$rows"; done
        cargo run --quiet --locked --package derp-kv-examples --bin bench_report -- "$rows" .
        ;;
    *)
        for name in "$@"; do bench "$name"; done
        ;;
esac
