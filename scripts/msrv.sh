#!/usr/bin/env bash
# Checks that each library crate compiles with the toolchain that its `rust-version` promises, with all features and
# the locked dependencies. Installs nothing: where a toolchain is missing it says how to get it, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# A directory of its own: another compiler would throw out what the tests have built.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv

command -v rustup >/dev/null \
    || fail "older toolchains are chosen by rustup, which is not on PATH: install it (https://rustup.rs)"

crates=$(published)
while read -r package version _; do
    cargo "+$version" --version >/dev/null 2>&1 \
        || fail "Rust $version is not installed: rustup toolchain install $version --profile minimal"
    say "$package with Rust $version"
    cargo "+$version" check --quiet --locked --lib --all-features --package "$package"
done <<<"$crates"
