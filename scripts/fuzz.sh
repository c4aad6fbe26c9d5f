#!/usr/bin/env bash
# Fuzzes the decoder of replies, for a minute or SECONDS; fails when it finds an input that breaks it.
#
#   scripts/fuzz.sh [SECONDS]   the input is then under derp-kv-valkey/fuzz/artifacts
#
# Installs cargo-fuzz into target/tools the first time.
#
# New inputs that reach new code are kept in fuzz/target; the small corpus that the tests replay stays as it is.
set -euo pipefail
cd "$(dirname "$0")/../derp-kv-valkey"

version=0.13.2
export PATH=$PWD/../target/tools/bin:$PATH
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    cargo install cargo-fuzz --version "$version" --locked --root ../target/tools
fi
found=fuzz/target/found
mkdir -p "$found"
# No sanitizer: there is no unsafe code to watch, and without one the stable toolchain suffices.
# Inputs are long enough for strings that have a buffer of their own.
cargo fuzz run --sanitizer none decoder "$found" fuzz/corpus/decoder -- \
    -max_len=40000 -len_control=0 -max_total_time="${1:-60}" -print_final_stats=1
