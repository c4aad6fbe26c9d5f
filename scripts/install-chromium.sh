#!/usr/bin/env bash
# Installs what the test of the page needs, a Chromium and its driver, and prints where those are as shell
# assignments (CHROMIUM, CHROMEDRIVER). What these variables already name is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

# The font that the page asks for first: with it screenshots look the same wherever they are made.
install() {
    is_debian || fail "this is not Debian: install Chromium and the chromedriver of the same version (googlechromelabs.github.io/chrome-for-testing) and put them on PATH, or set CHROMIUM and CHROMEDRIVER"
    allow "Debian packages: chromium chromium-driver fonts-inter fonts-liberation"
    as_root apt-get update >&2
    apt_install --no-install-recommends chromium chromium-driver fonts-inter fonts-liberation
}

major() { { "$1" --version 2>/dev/null || true; } | sed -n 's/^[A-Za-z ]* \([0-9]*\)\..*/\1/p'; }

remove_leftover
if [ -z "${CHROMIUM:-}" ] || [ -z "${CHROMEDRIVER:-}" ]; then
    found() { [ -n "${CHROMIUM:-$(command -v chromium)}" ] && [ -n "${CHROMEDRIVER:-$(command -v chromedriver)}" ]; }
    found || install
    found || fail "chromium and chromedriver were installed but are not on PATH"
    CHROMIUM=${CHROMIUM:-$(command -v chromium)} CHROMEDRIVER=${CHROMEDRIVER:-$(command -v chromedriver)}
fi

browser=$(major "$CHROMIUM") driver=$(major "$CHROMEDRIVER")
[ -n "$browser" ] || fail "$CHROMIUM is no Chromium"
[ "$browser" = "$driver" ] || fail "$CHROMEDRIVER is of version ${driver:-unknown}, and $CHROMIUM of version $browser: they must be of one version"
printf 'CHROMIUM=%q\nCHROMEDRIVER=%q\n' "$CHROMIUM" "$CHROMEDRIVER"
