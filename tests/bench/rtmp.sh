#!/bin/sh
# One publisher of 1 Mbit/s 640x360p30 and AAC to N RTMP and HTTP-FLV players, Freshet and nginx-rtmp in turn, all on this
# machine; prints tables for the README. Needs ffmpeg, jq, nginx and libnginx-mod-rtmp (Debian's names).
#
#   tests/bench/rtmp.sh                     100 and 500 players, then the delay with 1 and 100
#   ROUNDS=3 tests/bench/rtmp.sh 500        500 players, three rounds: the table holds medians
#   SERVER_CPUS=0 CLIENT_CPUS=1 …           pin server and tool to cores (taskset -c), so that they don't share one
#
# More: DURATION (seconds, 10), JOIN_RATE (per second, 100), DELAY_PLAYERS ("1 100"), PORT (18935; HTTP on PORT+1), OUT
# (folder for the reports), CASES (server:protocol, as in the tables), FRESHET and LOAD (binaries; neither is built then), NGINX_MODULE (path of ngx_rtmp_module.so).
#
# The fan-out is fed by ffmpeg with an encoded file, as an encoder would; the delay by freshet-load, whose messages carry
# a clock: from writing a picture to its last byte at a player that shares no thread with the others. Server and tool share
# the machine, and loopback charges the receiver's half of each segment to the sender. That holds for both servers.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"
target=${CARGO_TARGET_DIR:-target}
port=${PORT:-18935}
http=$((port + 1))
out=${OUT:-$(mktemp -d)}
rounds=${ROUNDS:-1}
delay_players=${DELAY_PLAYERS-1 100}
module=${NGINX_MODULE:-/usr/lib/nginx/modules/ngx_rtmp_module.so}
[ $# -gt 0 ] || set -- 100 500

if [ -z "${FRESHET:-}${LOAD:-}" ]; then
    cargo build --release -p freshet -p freshet-tests --bin freshet --bin freshet-load
fi
freshet=${FRESHET:-$target/release/freshet}
load=${LOAD:-$target/release/freshet-load}
ulimit -n "$(ulimit -H -n)"
mkdir -p "$out"

pinned() { # CPUS COMMAND…
    cpus=$1
    shift
    if [ -n "$cpus" ]; then exec taskset -c "$cpus" "$@"; else exec "$@"; fi
}

server=
publisher=
end() { # PID
    [ -n "$1" ] || return 0
    kill "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
stop_all() {
    end "$publisher"
    publisher=
    end "$server"
    server=
}
trap stop_all EXIT
trap 'exit 1' INT TERM

await() { # PORT LOG
    tries=0
    until curl -s -o /dev/null --max-time 1 "telnet://127.0.0.1:$1" </dev/null || [ $? -eq 28 ]; do
        tries=$((tries + 1))
        if [ $tries -ge 50 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "the server did not start; its log:" >&2
            tail -n 20 "$2" >&2
            exit 1
        fi
        sleep 0.1
    done
}

start_freshet() {
    export FRESHET_HTTP_LISTEN="127.0.0.1:$http" FRESHET_RTC_LISTEN="127.0.0.1:$((port + 2))"
    export FRESHET_HTTPS_ENABLED=false FRESHET_RTMP_LISTEN="127.0.0.1:$port"
    (pinned "${SERVER_CPUS:-}" "$freshet") >"$out/freshet.log" 2>&1 &
    server=$!
    await "$port" "$out/freshet.log"
    pids=$server
}

start_nginx() { # CHUNK_SIZE
    mkdir -p "$out/nginx"
    user=
    [ "$(id -u)" -ne 0 ] || user="user root;"
    cat >"$out/nginx/nginx.conf" <<EOF
load_module $module;
$user
daemon off;
worker_processes 1;
pid $out/nginx/nginx.pid;
error_log $out/nginx/error.log;
events { worker_connections 8192; }
rtmp {
    access_log off;
    server {
        listen 127.0.0.1:$port;
        chunk_size $1;
        application live { live on; }
    }
}
EOF
    (pinned "${SERVER_CPUS:-}" nginx -p "$out/nginx" -c "$out/nginx/nginx.conf") >"$out/nginx.log" 2>&1 &
    server=$!
    await "$port" "$out/nginx.log"
    pids=$server$(pgrep -P "$server" | sed 's/^/,/' | tr -d '\n')
}

start() { # freshet | nginx-CHUNK_SIZE
    case $1 in
    freshet) start_freshet ;;
    *) start_nginx "${1#nginx-}" ;;
    esac
}

film=$out/film.flv
[ -f "$film" ] || ffmpeg -hide_banner -loglevel error -f lavfi -i testsrc2=size=640x360:rate=30 \
    -f lavfi -i sine=frequency=440:sample_rate=48000 -t 20 -c:v libx264 -preset veryfast -profile:v main -bf 0 -g 60 \
    -b:v 1000k -minrate 1000k -maxrate 1000k -bufsize 500k -x264-params nal-hrd=cbr:force-cfr=1 -pix_fmt yuv420p \
    -c:a aac -b:a 128k -ac 2 -f flv "$film"

publish() {
    ffmpeg -hide_banner -loglevel error -nostdin -re -stream_loop -1 -i "$film" -c copy -f flv \
        "rtmp://127.0.0.1:$port/live/cam" >"$out/ffmpeg.log" 2>&1 &
    publisher=$!
    sleep 3
}

run() { # NAME ARGUMENTS…
    name=$1
    shift
    (pinned "${CLIENT_CPUS:-}" "$load" live --server-pid "$pids" --join-rate "${JOIN_RATE:-100}" \
        --duration "${DURATION:-10}" --json "$out/$name.json" "$@") >"$out/$name.txt" 2>"$out/$name.log" || {
        cat "$out/$name.log" "$out/$name.txt" >&2
        exit 1
    }
}

address() { # rtmp | flv
    if [ "$1" = flv ]; then echo "http://127.0.0.1:$http/live/cam.flv"; else echo "rtmp://127.0.0.1:$port/live/cam"; fi
}

cases=${CASES:-freshet:rtmp nginx-4096:rtmp nginx-60000:rtmp freshet:flv}
round=1
while [ "$round" -le "$rounds" ]; do
    for case in $cases; do
        for players in "$@"; do
            start "${case%:*}"
            publish
            run "fan-out-$case-$players-$round" --players "$players" --play "$(address "${case#*:}")"
            stop_all
        done
        for players in $delay_players; do
            start "${case%:*}"
            run "delay-$case-$players-$round" --players "$players" --play "$(address "${case#*:}")" \
                --publish "$(address rtmp)" --probes $(((players + 19) / 20))
            stop_all
        done
    done
    round=$((round + 1))
done

reports() { # KIND CASE PLAYERS: a report of each round
    round=1
    while [ "$round" -le "$rounds" ]; do
        cat "$out/$1-$2-$3-$round.json"
        round=$((round + 1))
    done
}

functions='
    def r(n): . * pow(10; n) | round / pow(10; n);
    def median(f): map(f) | sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
    def sum(f): map(f) | add;
    def ratio(base): if base > 0 then median(.derived.server_cpu_percent) / base | r(2) else "-" end;
    def row: "| " + (map(tostring) | join(" | ")) + " |";'

cpu_of() { # KIND PLAYERS: of nginx with its own chunk size, in percent
    case $cases in
    *nginx-4096:rtmp*) reports "$1" nginx-4096:rtmp "$2" | jq -s "$functions median(.derived.server_cpu_percent)" ;;
    *) echo 0 ;;
    esac
}

echo "$(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), kernel $(uname -r), medians of $rounds rounds."
nginx -v 2>&1 | sed 's/$/ with libnginx-mod-rtmp, one worker; the number is its chunk_size./'
echo
echo "| server | players | fed | CPU | CPU per 100 players | of nginx-4096 | per message | KB per player | steps in time | ended early | longest gap p50 / max | tool CPU | cores busy |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
for players in "$@"; do
    base=$(cpu_of fan-out "$players")
    for case in $cases; do
        reports fan-out "$case" "$players" | jq -rs --arg case "$case" --argjson base "$base" "$functions"'
            [ $case, .[0].players.asked, median(.players.fed), "\(median(.derived.server_cpu_percent) | r(1)) %",
              "\(median(.derived.server_cpu_percent_per_100_players) | r(2)) %",
              ratio($base),
              "\(median(.derived.server_us_per_message) | r(2)) µs",
              (median(.derived.server_rss_kb_per_player) | r(1)),
              sum(.received.jumps), sum(.players.failed + .players.ended_early),
              "\(median(.longest_gap_ms.p50) | r(0)) / \(median(.longest_gap_ms.max) | r(0)) ms",
              "\(median(.derived.client_cpu_percent) | r(0)) %",
              "\(median(.core_busy_percent | add / length) | r(0)) %"
            ] | row'
    done
done
echo
echo "| server | players | delay p50 | p95 | p99 | all players p50 / p99 | missing | CPU | of nginx-4096 | publisher late p99 |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
for players in $delay_players; do
    base=$(cpu_of delay "$players")
    for case in $cases; do
        reports delay "$case" "$players" | jq -rs --arg case "$case" --argjson base "$base" "$functions"'
            [ $case, .[0].players.asked, "\(median(.delay_probes_ms.p50) | r(2)) ms",
              "\(median(.delay_probes_ms.p95) | r(2)) ms", "\(median(.delay_probes_ms.p99) | r(2)) ms",
              "\(median(.delay_ms.p50) | r(2)) / \(median(.delay_ms.p99) | r(2)) ms", sum(.received.missing),
              "\(median(.derived.server_cpu_percent) | r(1)) %", ratio($base), "\(median(.publisher_lag_ms.p99) | r(2)) ms"
            ] | row'
    done
done
echo
echo "Full reports: $out"
