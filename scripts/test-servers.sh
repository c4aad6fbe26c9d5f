#!/usr/bin/env bash
# Runs the Valkey backend's tests on every server that can be had, which takes about ten minutes a
# server, and writes the table "Works with" into README.md. Arguments choose some of the servers by
# their variables (VALKEY_SERVER VALKEY_9_SERVER VALKEY_8_1_SERVER REDIS_6_SERVER ..). The new row of a server takes
# the place of the row with its name and its minor version; all other rows stay.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/common.sh

mkdir -p target/servers
status=0

variables=(VALKEY_9_SERVER VALKEY_8_1_SERVER VALKEY_SERVER REDIS_NEW_SERVER REDIS_8_SERVER
    REDIS_7_SERVER REDIS_6_SERVER REDICT_SERVER)
installed=$(scripts/install-valkey.sh)
eval "$installed"
found=$(scripts/install-servers.sh "$@") || status=1
eval "$found"

# The row of a server from the log of its tests.
row() {
    local version
    version=$("$1" --version | sed 's/^\([A-Za-z]*\) server v=\([0-9.]*\).*/\1 \2/')
    awk -v server="$version" -v date="$(date +%F)" '
        $1 == "Running" { target = $2; sub(/.*\//, "", target); sub(/\.rs$/, "", target) }
        / has no TLS: / { trouble = trouble ", this build has no TLS" }
        $1 == "test" && ($NF == "ok" || $NF == "FAILED") && $2 != "result:" {
            kind = "other"
            if (target == "conformance_standalone") kind = "standalone"
            if (target == "conformance_cluster") kind = "cluster"
            if (target ~ /^faults_/) kind = "faults"
            of[kind]++
            if ($NF == "ok") passed[kind]++
            else failed[++failures] = target "::" $2
        }
        # The first words of a panic; of a law, what it observed.
        /^thread .* panicked at / { split($0, quoted, "\047"); test = target "::" quoted[2]; first = NR + 1 }
        NR == first { why[test] = $0 }
        / observed: / { why[test] = $0 }
        function cell(kind) { return " " passed[kind] + 0 " of " of[kind] + 0 " |" }
        END {
            for (number = 1; number <= failures; number++) {
                reason = why[failed[number]]
                gsub(/\|/, "/", reason)
                sub(/^ *(observed: )?/, "", reason)
                trouble = trouble ", `" failed[number] "` (" substr(reason, 1, 120) ")"
            }
            notes = substr(trouble, 3)
            print "| " server " |" cell("standalone") cell("cluster") cell("faults") cell("other") \
                " " date " | " (notes == "" ? "nothing" : notes) " |"
        }' "$2"
}

for variable in "${variables[@]}"; do
    if [ $# -gt 0 ] && [[ " $* " != *" $variable "* ]]; then continue; fi
    server=${!variable:-}
    [ -n "$server" ] || continue
    began=$SECONDS
    log=target/servers/$variable.log
    VALKEY_SERVER=$server scripts/test-on-server.sh --no-fail-fast >"$log" 2>&1 || status=1
    row=$(row "$server" "$log")
    say "$row $((SECONDS - began)) s, $log"
    # A run in which no law was tested says nothing about the server.
    if [[ $row == *"| 0 of 0 | 0 of 0 |"* ]]; then status=1; continue; fi
    awk -v row="$row" '
        function name(line) { split(line, cells, "|"); sub(/\.[0-9]+ *$/, "", cells[2]); return cells[2] }
        /^<!-- servers:end -->$/ { if (!written) print row; inside = 0 }
        inside && name($0) == name(row) { $0 = row; written = 1 }
        { print }
        /^<!-- servers:begin -->$/ { inside = 1 }' README.md >target/servers/README.md
    cp target/servers/README.md README.md
done
exit "$status"
