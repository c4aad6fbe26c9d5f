#!/usr/bin/env bash
# Runs the Valkey backend's tests on the server that VALKEY_SERVER names. The TLS tests (targets
# `tls` and `*_tls`) are left out: a server without TLS support cannot run them.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=()
for file in derp-kv-valkey/tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in tls | *_tls) ;; *) targets+=(--test "$name") ;; esac
done
cargo test --locked -p derp-kv-valkey "${targets[@]}"
