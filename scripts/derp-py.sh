#!/usr/bin/env bash
# Runs derp-py itself beside derp-kv on one server: each replays the other's records, and knows the other's
# events and counters. Installs derp-py and its client into target/derp-py, which takes a minute the first
# time, from wheels whose SHA-256 scripts/derp-py.txt holds. PYTHON names the interpreter, 3.12 to 3.14.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

requirements=scripts/derp-py.txt
venv=target/derp-py

# The first interpreter that the wheels are for and that can make a virtual environment.
find_python() {
    local candidate
    local candidates=(python3.12 python3.13 python3.14 python3 "$(pyenv root 2>/dev/null)"/versions/3.1[2-4]*/bin/python3)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        "$candidate" -c 'import ensurepip, sys; sys.exit(not (3, 12) <= sys.version_info < (3, 15))' 2>/dev/null || continue
        printf '%s\n' "$candidate"
        return
    done
    fail "derp-py needs Python 3.12, 3.13 or 3.14, with its module venv: install it, or set PYTHON"
}

# What was installed is told by the list that it was installed from.
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    python=$(find_python)
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-deps --only-binary :all: --require-hashes --requirement "$requirements" \
        || fail "derp-py cannot be installed: see pip's error above"
    cp "$requirements" "$venv/requirements.txt"
fi

servers=$(scripts/install-valkey.sh)
eval "$servers"
export VALKEY_SERVER DERP_PY=$PWD/$venv/bin/python
cargo run --locked -p derp-kv-valkey --example derp_py
