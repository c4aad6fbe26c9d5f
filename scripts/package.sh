#!/usr/bin/env bash
# Makes the package of each published crate, lists what each holds, and compiles each as whoever downloads it would:
# from the package's files alone, the others' packages being what it depends on. None of them has to be published.
#
#   scripts/package.sh           type-checks each, which is enough to see that no file is missing
#   scripts/package.sh --build   builds each by cargo's own verification, as `cargo publish` does; some minutes more
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

verify=(--no-verify)
case ${1:-} in
    --build) verify=() ;;
    '') ;;
    *) fail "the only argument is --build" ;;
esac

# What the other gates have checked of the dependencies serves here, too.
target=${CARGO_TARGET_DIR:-target}
rm -rf "$target/package"

dirty=()
# A checkout may be of a change that is not committed; what is published comes from a commit.
if [ -n "$(git status --porcelain 2>/dev/null)" ]; then
    say "packages the working tree, which differs from the last commit"
    dirty=(--allow-dirty)
fi
# The two warnings are known: there is no public repository to name, and tests and benchmarks are not in a package.
cargo package --quiet --workspace --exclude derp-kv-examples --locked "${verify[@]}" "${dirty[@]}" 2>&1 \
    | { grep -v -e 'manifest has no documentation, homepage or repository' -e 'see https://doc.rust-lang.org/cargo/reference/manifest' \
        -e 'ignoring benchmark `' -e 'ignoring test `' -e 'ignoring example `' || true; } >&2

status=0
for package in "$target"/package/*.crate; do
    name=$(basename "$package" .crate)
    files=$(tar -tzf "$package" | sed "s|^$name/||" | sort)
    say "$name: $(wc -l <<<"$files") files, $(($(wc -c <"$package") / 1024)) KiB packed, $(tar -xzOf "$package" | wc -c | awk '{ print int($1 / 1024) }') KiB unpacked"
    sed 's/^/    /' <<<"$files"
    for file in LICENSE-MIT LICENSE-APACHE README.md Cargo.toml Cargo.lock src/lib.rs; do
        grep -qx "$file" <<<"$files" || { say "$name lacks $file"; status=1; }
    done
    for file in LICENSE-MIT LICENSE-APACHE; do
        tar -xzOf "$package" "$name/$file" | cmp -s - "$file" || { say "$file in $name is not the project's"; status=1; }
    done
    odd=$(grep -Ev '^(src/.*\.(rs|lua)|LICENSE-(MIT|APACHE)|(README|LAWS|MUTANTS|SQL)\.md|Cargo\.(toml|toml\.orig|lock)|\.cargo_vcs_info\.json)$' <<<"$files" || true)
    [ -z "$odd" ] || { say "$name holds what it should not: $odd"; status=1; }
done
expected=$(published | wc -l)
found=$(find "$target/package" -maxdepth 1 -name '*.crate' | wc -l)
[ "$found" = "$expected" ] || { say "$found packages of $expected"; status=1; }
[ "$status" = 0 ] || exit "$status"

if [ ${#verify[@]} -gt 0 ]; then
    # A workspace of what is in the packages, with the versions of this one's lock file.
    unpacked=$target/package/unpacked
    mkdir -p "$unpacked"
    {
        printf '[workspace]\nresolver = "3"\nmembers = ["derp-kv-*"]\n\n[patch.crates-io]\n'
        for package in "$target"/package/*.crate; do
            tar -xzf "$package" -C "$unpacked"
            name=$(basename "$package" .crate)
            printf '%s = { path = "%s" }\n' "${name%%-[0-9]*}" "$name"
        done
    } >"$unpacked/Cargo.toml"
    cp Cargo.lock "$unpacked/"
    names=()
    for package in "$unpacked"/derp-kv-*; do
        name=$(basename "$package")
        names+=(--package "${name%%-[0-9]*}")
    done
    CARGO_TARGET_DIR=$(realpath "$target") \
        cargo check --quiet --offline --lib --all-features --manifest-path "$unpacked/Cargo.toml" "${names[@]}"
    say "each compiles from its package"
fi
