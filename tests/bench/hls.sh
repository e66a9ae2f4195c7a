#!/bin/sh
# HLS from Freshet's memory against the same bytes as files of nginx, asked for by wrk; and what making HLS costs. All on
# this machine; prints tables for the README. Needs curl, ffmpeg, nginx and wrk (Debian's names).
#
#   tests/bench/hls.sh                      three rounds, medians
#   ROUNDS=1 DURATION=3 tests/bench/hls.sh  a quick look
#
# More: CONNECTIONS (64), PORT (18990; nginx on PORT+1, RTMP on PORT+2), KBPS (2000), SECONDS_OF_WORK (20), FRESHET (binary; not
# built then), OUT (folder).
#
# wrk shares the cores with the servers, so requests per second say little on a busy machine; processor time per request
# is the server's own, user and system, and holds the kernel's half of loopback for both.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
cd "$here"
PATH=$PATH:/usr/sbin
port=${PORT:-18990}
nginx_port=$((port + 1))
rtmp_port=$((port + 2))
rounds=${ROUNDS:-3}
duration=${DURATION:-5}
connections=${CONNECTIONS:-64}
kbps=${KBPS:-2000}
work_seconds=${SECONDS_OF_WORK:-20}
out=${OUT:-$(mktemp -d)}
if [ -z "${FRESHET:-}" ]; then cargo build --release; fi
freshet=${FRESHET:-${CARGO_TARGET_DIR:-target}/release/freshet}
ticks=$(getconf CLK_TCK)
mkdir -p "$out/nginx/files"

started=
stop_all() {
    for pid in $started; do kill "$pid" 2>/dev/null || true; done
    for pid in $started; do wait "$pid" 2>/dev/null || true; done
    started=
}
trap stop_all EXIT
trap 'exit 1' INT TERM

patiently() { # COMMAND…: until it succeeds
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -ge 200 ]; then echo "not in 20 s: $*" >&2; exit 1; fi
        sleep 0.1
    done
}

cpu_ms() { # PID…: processor time so far
    total=0
    for pid in "$@"; do
        spent=$(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }')
        total=$((total + spent))
    done
    echo $((total * 1000 / ticks))
}

FRESHET_HTTP_LISTEN="127.0.0.1:$port" FRESHET_RTMP_LISTEN="127.0.0.1:$rtmp_port" FRESHET_RTC_LISTEN="127.0.0.1:$((port + 3))" \
    FRESHET_HTTPS_ENABLED=false "$freshet" >"$out/freshet.log" 2>&1 &
server=$!
started="$server"
base=http://127.0.0.1:$port
patiently curl -sf "$base/healthz"

film=$out/film.flv
[ -f "$film" ] || ffmpeg -hide_banner -loglevel error -f lavfi -i testsrc2=size=1280x720:rate=30 \
    -f lavfi -i sine=frequency=440:sample_rate=48000 -t 20 -c:v libx264 -preset veryfast -bf 0 -g 60 \
    -b:v "${kbps}k" -minrate "${kbps}k" -maxrate "${kbps}k" -bufsize "$((kbps / 2))k" -x264-params nal-hrd=cbr:force-cfr=1 \
    -pix_fmt yuv420p -c:a aac -b:a 128k -ac 2 -f flv "$film"
ffmpeg -hide_banner -loglevel error -nostdin -re -stream_loop -1 -i "$film" -c copy -f flv \
    "rtmp://127.0.0.1:$rtmp_port/live/cam" >"$out/ffmpeg.log" 2>&1 &
publisher=$!
started="$server $publisher"

# What making costs: nothing asked for, then one format after the other on top.
sleep 6
work() { # prints per mille of a core
    before=$(cpu_ms "$server")
    sleep "$work_seconds"
    echo $((($(cpu_ms "$server") - before) / work_seconds))
}
player=
poll() { # URL: asks every second, as a player does
    while :; do
        curl -s -o /dev/null "$1"
        sleep 1
    done
}
echo "| one publisher of $kbps kbit/s over RTMP, and | CPU of a core |"
echo "|---|---:|"
row() { printf '| %s | %s %% |\n' "$1" "$(work | awk '{ printf "%.1f", $1 / 10 }')"; }
row "nobody"
poll "$base/live/cam.m3u8" &
started="$started $!"
sleep 2
row "HLS of MPEG-TS"
poll "$base/hls/live/cam/media.m3u8" &
started="$started $!"
sleep 2
row "low-latency HLS too"
curl -s -o /dev/null "$base/live/cam.flv" &
started="$started $!"
sleep 1
row "one HTTP-FLV player too"

# The same bytes for both.
patiently curl -sf "$base/live/cam.m3u8"
curl -s "$base/live/cam.m3u8" >"$out/nginx/files/cam.m3u8"
segment=$(grep '\.ts$' "$out/nginx/files/cam.m3u8" | tail -n 1)
curl -s "$base/live/$segment" >"$out/nginx/files/segment.ts"
curl -s "$base/hls/live/cam/media.m3u8" >"$out/nginx/files/media.m3u8"
part=$(sed -n 's/.*URI="\(part-[^"]*\)",IND.*/\1/p' "$out/nginx/files/media.m3u8" | tail -n 1)
curl -s "$base/hls/live/cam/$part" >"$out/nginx/files/part.m4s"
gzip -k -f -1 "$out/nginx/files/media.m3u8"

user=
[ "$(id -u)" -ne 0 ] || user="user root;"
cat >"$out/nginx/nginx.conf" <<EOF
$user
daemon off;
worker_processes $(nproc);
pid $out/nginx/nginx.pid;
error_log $out/nginx/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    open_file_cache max=100;
    types { application/vnd.apple.mpegurl m3u8; video/mp2t ts; video/mp4 m4s; }
    server { listen 127.0.0.1:$nginx_port; root $out/nginx/files; gzip_static on; }
}
EOF
nginx -p "$out/nginx" -c "$out/nginx/nginx.conf" >"$out/nginx.log" 2>&1 &
nginx=$!
started="$started $nginx"
patiently curl -sf "http://127.0.0.1:$nginx_port/cam.m3u8"
workers=$(pgrep -P "$nginx" | tr '\n' ' ')

ask() { # REPORT URL PIDS [WRK OPTIONS…]: appends requests per second and microseconds per request
    report=$1 url=$2 pids=$3
    shift 3
    # shellcheck disable=SC2086
    before=$(cpu_ms $pids)
    wrk -t1 -c"$connections" -d"${duration}s" "$@" "$url" >"$out/wrk.txt"
    # shellcheck disable=SC2086
    spent=$(($(cpu_ms $pids) - before))
    if grep -q 'Non-2xx\|Socket errors' "$out/wrk.txt"; then cat "$out/wrk.txt" >&2; fi
    awk -v spent="$spent" '/requests in/ { n = $1 } /^Requests\/sec/ { rps = $2 } END { printf "%.0f %.2f\n", rps, spent * 1000 / n }' \
        "$out/wrk.txt" >>"$out/$report"
}

both() { # NAME PATH_OF_FRESHET FILE [WRK OPTIONS…]
    name=$1 path=$2 file=$3
    shift 3
    ask "$name-freshet" "$base$path" "$server" "$@"
    ask "$name-nginx" "http://127.0.0.1:$nginx_port/$file" "$workers" "$@"
}

median() { # FILE COLUMN
    awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

rm -f "$out"/*-freshet "$out"/*-nginx
round=0
while [ $round -lt "$rounds" ]; do
    # The newest ones: what has left the window is not there any more.
    segment=$(curl -s "$base/live/cam.m3u8" | grep '\.ts$' | tail -n 1)
    both playlist /live/cam.m3u8 cam.m3u8
    both segment "/live/$segment" segment.ts
    both low-latency /hls/live/cam/media.m3u8 media.m3u8
    both low-latency-gzip /hls/live/cam/media.m3u8 media.m3u8 -H 'Accept-Encoding: gzip'
    part=$(curl -s "$base/hls/live/cam/media.m3u8" | sed -n 's/.*URI="\(part-[^"]*\)",IND.*/\1/p' | tail -n 1)
    both part "/hls/live/cam/$part" part.m4s
    round=$((round + 1))
done

echo
echo "$(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), $connections connections, medians of $rounds rounds of $duration s."
nginx -v 2>&1 | sed 's/$/, files from its cache of open ones, a worker for each core./'
echo
echo "| | bytes | Freshet, requests/s | nginx, requests/s | | Freshet, CPU per request | nginx, CPU per request | |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|"
for line in playlist:cam.m3u8 low-latency:media.m3u8 low-latency-gzip:media.m3u8.gz part:part.m4s segment:segment.ts; do
    name=${line%%:*}
    bytes=$(wc -c <"$out/nginx/files/${line#*:}")
    echo "$(median "$out/$name-freshet" 1) $(median "$out/$name-nginx" 1) $(median "$out/$name-freshet" 2) $(median "$out/$name-nginx" 2)" |
        awk -v name="$name" -v bytes="$bytes" '{ printf "| %s | %d | %d | %d | %.2f | %.1f µs | %.1f µs | %.2f |\n", name, bytes, $1, $2, $1 / $2, $3, $4, $3 / $4 }'
done
