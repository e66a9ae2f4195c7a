#!/bin/sh
# Rooms of two, all on this machine: everybody publishes video and Opus and plays the other one, as /call does. Ends with
# status 1 when a packet is missing.
#
#   tests/bench/calls.sh [ROOMS]            100 rooms of two
#   BITRATE_KBPS=1000 DURATION=30 …         video of each person (500), measured seconds (10)
#
# More: JOIN_RATE (viewers per second, 40), PORT (18080; media on PORT+1), ARGS for freshet-load. See sfu.sh about what such figures mean.
set -eu

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
port=${PORT:-18080}
people=$((2 * ${1:-100}))
log=$(mktemp)

[ -n "${NO_BUILD:-}" ] || cargo build --release -p freshet -p freshet-tests --bin freshet --bin freshet-load
ulimit -n "$(ulimit -H -n)"

FRESHET_HTTP_LISTEN="127.0.0.1:$port" FRESHET_RTC_LISTEN="127.0.0.1:$((port + 1))" FRESHET_HTTPS_ENABLED=false FRESHET_RTMP_ENABLED=false \
    "$target/release/freshet" >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 1' INT TERM
tries=0
until curl -fs -o /dev/null "http://127.0.0.1:$port/healthz"; do
    tries=$((tries + 1))
    if [ $tries -ge 50 ] || ! kill -0 $server 2>/dev/null; then
        echo "the server did not start; its log:" >&2
        tail -n 20 "$log" >&2
        exit 1
    fi
    sleep 0.1
done

# One publisher and one viewer of the stream per person: in a room of two that is what the server carries.
# shellcheck disable=SC2086 # ARGS is a list of words.
"$target/release/freshet-load" --server "http://127.0.0.1:$port" --server-pid $server --publishers $people --viewers 1 \
    --bitrate-kbps "${BITRATE_KBPS:-500}" --join-rate "${JOIN_RATE:-40}" --join-timeout 60 --warmup 3 --duration "${DURATION:-10}" --strict ${ARGS:-}
