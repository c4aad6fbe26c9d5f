#!/usr/bin/env bash
# Compares the public interface of each library crate with that of a git revision, by cargo-semver-checks, and fails
# where the version of the workspace does not admit a change. Nothing is on a registry to compare with yet, so the
# baseline is a tag.
#
#   scripts/semver.sh v0.1.0
#
# Installs cargo-semver-checks into target/tools, which compiles for some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

baseline=${1:-}
[ -n "$baseline" ] || fail "say what to compare with: scripts/semver.sh TAG"
git rev-parse --verify --quiet "$baseline^{commit}" >/dev/null || fail "$baseline is no revision of this repository"

version=0.51.0
tool=target/tools/bin/cargo-semver-checks
if [ "$("$tool" semver-checks --version 2>/dev/null)" != "cargo-semver-checks $version" ]; then
    say "installing cargo-semver-checks $version"
    cargo install cargo-semver-checks --version "$version" --locked --root target/tools
fi
# The features that docs.rs shows are all that are for users; `mutants` and `fuzzing` promise nothing.
crates=$(published)
while read -r crate _ features; do
    "$tool" semver-checks --baseline-rev "$baseline" --default-features ${features:+--features "$features"} --package "$crate"
done <<<"$crates"
