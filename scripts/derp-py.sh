#!/usr/bin/env bash
# Runs derp-py itself beside derp-kv on one server: each replays the other's records, and knows the other's
# events and counters. Installs derp-py and its client into target/derp-py, which takes a minute the first
# time. PYTHON names the interpreter, which must be 3.12 or newer.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

packages=(derp-py==0.2.15 valkey-glide==2.5.3)
venv=target/derp-py

# The first interpreter that is new enough and can make a virtual environment.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.13 python3.14 python3 \
        "$(pyenv root 2>/dev/null)"/versions/3.1[2-9]*/bin/python3}; do
        "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return
    done
    fail "derp-py needs Python 3.12 or newer, with its module venv: install it, or set PYTHON"
}

is_installed() {
    "$venv/bin/python" - "${packages[@]}" 2>/dev/null <<'PYTHON'
import importlib.metadata, sys
for package in sys.argv[1:]:
    name, version = package.split("==")
    assert importlib.metadata.version(name) == version
PYTHON
}

if ! is_installed; then
    python=$(find_python)
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet "${packages[@]}" \
        || fail "${packages[*]} cannot be installed: see pip's error above"
fi

servers=$(scripts/install-valkey.sh)
eval "$servers"
export VALKEY_SERVER DERP_PY=$PWD/$venv/bin/python
cargo run --locked -p derp-kv-valkey --example derp_py
