#!/usr/bin/env bash
# Faults at random on a cluster for so many seconds (600 by default), on the server that VALKEY_SERVER
# names, and otherwise on Valkey 8 and then on Valkey 9. DERP_KV_CHAOS_SEED repeats the order of faults.
#
#   scripts/chaos.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/.."
export DERP_KV_CHAOS_SECONDS=${1:-600}

if [ -n "${VALKEY_SERVER:-}" ]; then
    servers=("$VALKEY_SERVER")
else
    installed=$(scripts/install-valkey.sh)
    eval "$installed"
    servers=("$VALKEY_SERVER" "$VALKEY_9_SERVER")
fi
for server in "${servers[@]}"; do
    echo "== $DERP_KV_CHAOS_SECONDS s of faults, with $("$server" --version)"
    VALKEY_SERVER=$server cargo test --locked -p derp-kv-valkey --test chaos -- --nocapture
done
