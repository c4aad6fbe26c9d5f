#!/usr/bin/env bash
# Runs the Valkey backend's tests on the server that VALKEY_SERVER names; arguments go to cargo. A
# server that was built without TLS does not get the TLS tests (targets `tls` and `*_tls`).
set -euo pipefail
cd "$(dirname "$0")/.."

# The last option is unknown to every server, and ends it.
refused=$(printf 'port 0\ntls-port 0\nno-such-option 1\n' | "$VALKEY_SERVER" - 2>&1 || true)
has_tls=1
if [[ $refused == *tls-port* ]]; then
    echo "$VALKEY_SERVER has no TLS: the TLS tests are left out"
    has_tls=
fi

targets=()
for file in derp-kv-valkey/tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in tls | *_tls) [ -n "$has_tls" ] || continue ;; esac
    targets+=(--test "$name")
done
cargo test --locked -p derp-kv-valkey "${targets[@]}" "$@"
