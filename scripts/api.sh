#!/usr/bin/env bash
# Writes the public items of each library crate into api/, one a line, so that a change of the interface shows in a
# review. With --check it writes nothing, and fails where api/ is not what the code says.
#
#   scripts/api.sh [--check]
#
# It reads rustdoc's JSON, which only nightly toolchains write. The format changes with them: scripts/public-api pins
# what can read it, and the nightly below was last used with it. NIGHTLY names another one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
    --check | '') ;;
    *) fail "the only argument is --check" ;;
esac
nightly=${NIGHTLY:-nightly-2026-05-19}
cargo "+$nightly" --version >/dev/null 2>&1 \
    || fail "rustdoc's JSON needs a nightly toolchain: rustup toolchain install $nightly --profile minimal, or name one that is there in NIGHTLY"

# A directory of its own: another compiler would throw out what the tests have built.
export CARGO_TARGET_DIR=$PWD/target/api
cargo build --quiet --locked --manifest-path scripts/public-api/Cargo.toml

# The lists are replaced when all are written.
folder=$CARGO_TARGET_DIR/found
rm -rf "$folder"
mkdir -p "$folder"
# With the features that docs.rs shows.
crates=$(published)
while read -r crate _ features; do
    RUSTDOCFLAGS='-Z unstable-options --output-format json --cap-lints allow' \
        cargo "+$nightly" doc --quiet --locked --lib --no-deps --package "$crate" --features "$features"
    "$CARGO_TARGET_DIR/debug/public-api-of" "$CARGO_TARGET_DIR/doc/${crate//-/_}.json" >"$folder/$crate.txt"
    say "$crate: $(wc -l <"$folder/$crate.txt") items"
done <<<"$crates"

if [ "${1:-}" = --check ]; then
    diff -ru api "$folder" >&2 || fail "the public interface is not what api/ says: run scripts/api.sh, and review what it changes there"
else
    mkdir -p api
    mv "$folder"/*.txt api/
fi
