#!/usr/bin/env bash
# Installs what the tests need and runs all of them, on real servers of Valkey 8, Valkey 9 and
# PostgreSQL.
set -euo pipefail
cd "$(dirname "$0")/.."

servers=$(scripts/install-valkey.sh)
eval "$servers"
export VALKEY_SERVER POSTGRES_BIN

echo "== all tests, with $("$VALKEY_SERVER" --version) and $("$POSTGRES_BIN/postgres" --version)"
cargo test --locked --workspace

echo "== the tests on a server again, with $("$VALKEY_9_SERVER" --version)"
VALKEY_SERVER=$VALKEY_9_SERVER scripts/test-on-server.sh
