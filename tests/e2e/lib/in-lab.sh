#!/bin/sh
# Runs $PROGRAM in the network namespace of lab.mjs. Playwright talks to Chromium over pipes, which lead out of it.
exec ip netns exec "$LAB_NAMESPACE" "$PROGRAM" "$@"
