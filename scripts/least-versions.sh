#!/usr/bin/env bash
# Checks that the library crates compile with the least version that each requirement in Cargo.toml
# admits. A copy of the workspace is resolved, so that Cargo.lock stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$PWD/${CARGO_TARGET_DIR:-target}
[[ ${CARGO_TARGET_DIR:-} != /* ]] || target=$CARGO_TARGET_DIR
export CARGO_TARGET_DIR=$target/least-versions
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

git ls-files -z --cached --others --exclude-standard \
    | while IFS= read -r -d '' file; do
        # One that was deleted and not committed is listed, too.
        if [ -e "$file" ]; then cp --parents -t "$copy" "$file"; fi
    done
cd "$copy"
rm Cargo.lock
# What the service needs newer must not raise what the libraries are checked with.
sed -i 's/^\(members = .*\), "examples"\]/\1]/' Cargo.toml
# The option is for nightly toolchains; on the stable one it needs this variable.
RUSTC_BOOTSTRAP=1 cargo generate-lockfile -Z direct-minimal-versions
cargo check --locked --all-features \
    -p derp-kv-core -p derp-kv-memory -p derp-kv-valkey -p derp-kv-conformance
