#!/usr/bin/env bash
# Builds the user guide into target/book, and fails where mdBook warns of anything or a link leads to no
# file. Installs mdBook into target/tools the first time, which takes minutes.
#
# Pages link to files outside of the book, such as docs/http.md. In the book these links lead to the files
# beside it, or, where BOOK_REPOSITORY names a code host's address of the project's files, there:
#
#   BOOK_REPOSITORY=https://host.example/owner/derp-kv/blob/main scripts/book.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

version=0.5.4
mdbook=target/tools/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
    say "installing mdBook $version"
    # The search is all that the book needs; the server that shows it while it is written is left out.
    cargo install mdbook --version "$version" --locked --root target/tools \
        --no-default-features --features search
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$mdbook" build docs/guide --dest-dir "$PWD/target/book" >"$log" 2>&1; then
    cat "$log" >&2
    fail "mdBook failed"
fi
cat "$log" >&2
if grep -q 'WARN\|ERROR' "$log"; then fail "mdBook has warned"; fi

# mdBook takes every link to a page for one within the book. The pages lie three folders deep, and the book
# two.
outside=${BOOK_REPOSITORY:-../..}
sed -i -E \
    -e "s|href=\"\.\./\.\./\.\./([^\"#]*)\.html|href=\"$outside/\1.md|g" \
    -e "s|href=\"\.\./\.\./\.\./|href=\"$outside/|g" \
    -e "s|href=\"\.\./\.\./([^./\"#][^\"#/]*)\.html|href=\"$outside/docs/\1.md|g" \
    target/book/*.html

links=$(grep -oh 'href="[^"]*' target/book/*.html | sed -e 's/^href="//' -e '/:/d' -e 's/#.*//' | sort -u)
broken=$(while read -r link; do
    [ -z "$link" ] || [ -e "target/book/$link" ] || printf '%s\n' "$link"
done <<<"$links")
if [ -n "$broken" ]; then fail "links of the book lead to no file: $broken"; fi
say "target/book/index.html"
