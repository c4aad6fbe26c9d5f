#!/usr/bin/env bash
# Kills so many processes (1,000 by default) at random moments while they work under idempotency keys, and
# looks whether any work is done twice. VALKEY_SERVER names the server; otherwise it is Valkey 8.
#
#   scripts/kills.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
export DERP_KV_KILLS=${1:-1000}

if [ -z "${VALKEY_SERVER:-}" ]; then
    installed=$(scripts/install-valkey.sh)
    eval "$installed"
fi
export VALKEY_SERVER
echo "== $DERP_KV_KILLS kills, with $("$VALKEY_SERVER" --version)"
cargo test --locked -p derp-kv-valkey --test abandoned -- --nocapture
