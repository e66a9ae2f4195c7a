#!/bin/sh
# What idle signaling sockets cost: 10,000 of them, first only open, then two by two in rooms.
#
#   tests/bench/signaling.sh [N]        PORT (18080) is that of HTTP, NO_BUILD=1 takes the binary that is there
#
# Needs `ws` (tests/run installs it) and as many open files as twice the sockets; the hard limit is raised to.
set -eu

cd "$(dirname "$0")/../.."
port=${PORT:-18080}
target=${CARGO_TARGET_DIR:-target}
[ -n "${NO_BUILD:-}" ] || cargo build --release
ulimit -n "$(ulimit -H -n)"

export FRESHET_HTTP_LISTEN="127.0.0.1:$port" FRESHET_RTC_LISTEN="127.0.0.1:$((port + 1))" FRESHET_HTTPS_ENABLED=false
export FRESHET_RTMP_ENABLED=false FRESHET_SIGNALING_MAX_SOCKETS=100000 FRESHET_SIGNALING_MAX_SOCKETS_PER_IP=100000
export FRESHET_SIGNALING_MAX_ROOMS=100000 FRESHET_LOG_LEVEL=warn
"$target/release/freshet" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
trap 'exit 1' INT TERM
until curl -fs -o /dev/null "http://127.0.0.1:$port/healthz"; do
    kill -0 $server
    sleep 0.2
done
node tests/bench/signaling.mjs "http://127.0.0.1:$port" $server "${1:-10000}"
