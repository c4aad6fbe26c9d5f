#!/usr/bin/env bash
# Runs the Valkey backend's tests on the server that VALKEY_SERVER names; arguments go to cargo. A
# server that was built without TLS does not get the TLS tests (targets `tls` and `*_tls`), and LEAVE_OUT names
# other targets that are not to be run.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without a certificate no server starts with TLS. A server with TLS says that it lacks one. A server without TLS says
# that it lacks TLS, or that it does not know the option.
refused=$(timeout 10 "$VALKEY_SERVER" --port 0 --tls-port 1 --save '' 2>&1 || true)
has_tls=
case $refused in
    *tls-cert-file*) has_tls=1 ;;
    *'Failed finding TLS support'* | *tls-port*) echo "$VALKEY_SERVER has no TLS: the TLS tests are left out" ;;
    *) printf '%s\n' "$refused" >&2 && echo "$VALKEY_SERVER does not say whether it has TLS" >&2 && exit 1 ;;
esac

targets=()
for file in derp-kv-valkey/tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in tls | *_tls) [ -n "$has_tls" ] || continue ;; esac
    case " ${LEAVE_OUT:-} " in *" $name "*) continue ;; esac
    targets+=(--test "$name")
done
# Of the whole workspace, whose build is there: alone, the crate has other features of its dependencies, and
# all of them would be compiled again. The tests of another member would run, too, if they had the name of one of
# these.
cargo test --locked --workspace "${targets[@]}" "$@"
