#!/usr/bin/env bash
# Takes the pictures of the checkout service's page anew, which docs/ has: docs/page-light.png and
# docs/page-dark.png. They are those of the test that presses every button of the page.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

browser=$(scripts/install-chromium.sh)
eval "$browser"
export CHROMIUM CHROMEDRIVER
cargo test --locked -p derp-kv-examples --test browser every_button
for scheme in light dark; do
    picture=${CARGO_TARGET_DIR:-target}/browser/page-$scheme.png
    [ "$(wc -c <"$picture")" -lt 204800 ] || fail "$picture has 200 KiB or more"
    cp "$picture" "docs/page-$scheme.png"
done
