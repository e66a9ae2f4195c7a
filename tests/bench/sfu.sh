#!/bin/sh
# One publisher of 1 Mbit/s 30 fps video and Opus to N viewers, all on this machine; prints a table for the README.
#
#   tests/bench/sfu.sh                      10, 100, 300 and 1000 viewers, one shard per core
#   SHARDS=1 tests/bench/sfu.sh 100 500     one shard, 100 and 500 viewers
#   SERVER_CPUS=0 CLIENT_CPUS=1 …           pin server and tool to cores (taskset -c), so that they don't share one
#   CHECKED=100 …                           decrypt and check at 100 viewers, count sequence numbers at the others
#
# More: DURATION (seconds, 10), JOIN_RATE (per second, 200), PORT (18080; media on PORT+1), OUT (folder for the reports),
# and ARGS for freshet-load ("--rtp-loss 0.02").
#
# Server and tool share the machine, and loopback charges the receiver's half of each packet to the sender: the server's
# system time is higher than on a network card, and the delay holds the tool's own turn. The table prints how busy the
# cores were and how late the tool's own timers fired; where either is high, the delay is the machine's.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"
target=${CARGO_TARGET_DIR:-target}
port=${PORT:-18080}
shards=${SHARDS:-0}
checked=${CHECKED:-}
out=${OUT:-$(mktemp -d)}
[ $# -gt 0 ] || set -- 10 100 300 1000

[ -n "${NO_BUILD:-}" ] || cargo build --release -p freshet -p freshet-tests --bin freshet --bin freshet-load
ulimit -n "$(ulimit -H -n)"
mkdir -p "$out"

pinned() { # CPUS COMMAND…
    cpus=$1
    shift
    if [ -n "$cpus" ]; then exec taskset -c "$cpus" "$@"; else exec "$@"; fi
}

server=
stop_server() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=
    fi
}
trap stop_server EXIT
trap 'exit 1' INT TERM

start_server() {
    export FRESHET_HTTP_LISTEN="127.0.0.1:$port" FRESHET_RTC_LISTEN="127.0.0.1:$((port + 1))"
    export FRESHET_HTTPS_ENABLED=false FRESHET_RTC_SHARDS="$shards"
    (pinned "${SERVER_CPUS:-}" "$target/release/freshet") >"$out/server.log" 2>&1 &
    server=$!
    tries=0
    until curl -fs -o /dev/null "http://127.0.0.1:$port/healthz"; do
        tries=$((tries + 1))
        if [ $tries -ge 50 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "the server did not start; its log:" >&2
            tail -n 20 "$out/server.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

load() { # NAME ARGUMENTS…
    name=$1
    shift
    # shellcheck disable=SC2086 # ARGS is a list of words.
    (pinned "${CLIENT_CPUS:-}" "$target/release/freshet-load" --server "http://127.0.0.1:$port" --server-pid "$server" \
        --join-rate "${JOIN_RATE:-200}" --duration "${DURATION:-10}" --json "$out/$name.json" "$@" ${ARGS:-}) \
        >"$out/$name.txt" 2>"$out/$name.log" || {
        cat "$out/$name.log" >&2
        exit 1
    }
}

for viewers in "$@"; do
    start_server
    load "viewers-$viewers" --viewers "$viewers" ${checked:+--checked "$checked"}
    stop_server
done
start_server
load joins --silent --viewers 300 --duration 1
stop_server

echo "$(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), kernel $(uname -r), shards ${shards} (0: one per core)."
echo "Server and load tool share the machine; loopback charges the receiver's half of a packet to the server."
echo
echo "| viewers | joined | packets/s | Mbit/s | missing | server CPU | per packet | RSS per viewer | delay p50 / p99 | keyframe p50 / p95 | tool CPU | tool lag p99 | cores busy |"
echo "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
for viewers in "$@"; do
    jq -r '
        def r(n): . * pow(10; n) | round / pow(10; n);
        [ .viewers.asked, .viewers.joined, (.received.packets_per_s | r(0)), (.received.payload_mbit_per_s | r(0)),
          (.received.missing_video + .received.missing_audio),
          "\(.derived.server_cpu_percent | r(0)) %", "\(.derived.server_ns_per_packet / 1000 | r(2)) µs",
          "\(.derived.server_rss_kb_per_viewer | r(0)) KB",
          "\(.delay_packet_ms.p50 | r(1)) / \(.delay_packet_ms.p99 | r(1)) ms",
          "\(.join.first_keyframe_ms.p50 | r(0)) / \(.join.first_keyframe_ms.p95 | r(0)) ms",
          "\(.derived.client_cpu_percent | r(0)) %", "\(.client_lag_ms.p99 | r(1)) ms",
          ([.core_busy_percent[] | "\(r(0)) %"] | join(", "))
        ] | "| " + (map(tostring) | join(" | ")) + " |"' "$out/viewers-$viewers.json"
done
echo
jq -r '"Joining without media: \(.derived.server_ms_per_join * 1000 | round) µs of server CPU per viewer, "
    + "\(.derived.server_rss_kb_per_viewer | round) KB each; offer to connected p50 \(.join.connected_ms.p50 | round) ms."' \
    "$out/joins.json"
echo "Full reports: $out"
