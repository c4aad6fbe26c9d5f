#!/usr/bin/env bash
# Installs what the tests need and runs all of them, on real servers of Valkey 8, Valkey 9 and
# PostgreSQL, and in a real browser.
#
#   scripts/test.sh [--yes]   says what it would install on the system, and asks where there is a terminal; with
#                             --yes, in CI, and for root in a container without a terminal it goes ahead
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
    --yes) export DERP_KV_YES=1 ;;
    '') ;;
    *) echo "test.sh: the only argument is --yes" >&2 && exit 2 ;;
esac

servers=$(scripts/install-valkey.sh)
eval "$servers"
browser=$(scripts/install-chromium.sh)
eval "$browser"
redis=$(scripts/install-servers.sh REDIS_6_SERVER)
eval "$redis"
export VALKEY_SERVER POSTGRES_BIN CHROMIUM CHROMEDRIVER

echo "== all tests, with $("$VALKEY_SERVER" --version) and $("$POSTGRES_BIN/postgres" --version)"
cargo test --locked --workspace

echo "== the tests on a server again, with $("$VALKEY_9_SERVER" --version)"
# What concerns the store's own side of a connection was shown above, whatever the server: most of these talk to
# a server that the test itself plays.
LEAVE_OUT='chaos config decoder_memory identity names odd_answers odd_maps runtimes settings stalls' \
    VALKEY_SERVER=$VALKEY_9_SERVER scripts/test-on-server.sh

echo "== the laws on the oldest server that is supported, $("$REDIS_6_SERVER" --version)"
VALKEY_SERVER=$REDIS_6_SERVER cargo test --locked --workspace --test conformance_standalone
