#!/usr/bin/env bash
# Runs the suite on every store that is right, so many times (20 by default), and again while three
# busy loops take the machine's processors. Each failure is a false alarm, or a fault of that store.
#
#   scripts/false-alarms.sh [RUNS]
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-20}

servers=$(scripts/install-valkey.sh)
eval "$servers"
export VALKEY_SERVER POSTGRES_BIN

# test target, and what its tests begin with
stores=(
    "conformance unbounded::"
    "conformance prefixed::"
    "redb_conformance fresh::"
    "conformance_standalone"
    "conformance_cluster"
    "postgres_conformance"
)

busy=()
end_busy() { [ ${#busy[@]} = 0 ] || kill "${busy[@]}" 2>/dev/null || true; busy=(); }
trap end_busy EXIT

alarms=0
run_all() {
    local beside=$1 store target filter number began seconds output
    for store in "${stores[@]}"; do
        read -r target filter <<<"$store"
        seconds=() output=$(mktemp)
        for ((number = 1; number <= runs; number++)); do
            began=$EPOCHREALTIME
            if ! timeout 600 cargo test --locked --quiet --workspace --test "$target" -- ${filter:+"$filter"} >"$output" 2>&1; then
                alarms=$((alarms + 1))
                echo "ALARM in run $number $beside:"
                grep -A3 -E '^law `' "$output" || tail -n 20 "$output"
            fi
            seconds+=("$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')")
        done
        rm -f "$output"
        echo "$target ${filter%::} $beside: $runs runs, seconds: ${seconds[*]}"
    done
}

cargo test --locked --workspace --no-run --quiet
run_all alone
for _ in 1 2 3; do (while :; do :; done) & busy+=($!); done
run_all "beside three busy loops"
echo "false alarms: $alarms"
[ "$alarms" = 0 ]
