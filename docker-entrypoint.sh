#!/bin/sh
# `demo [FOLDER]` runs the tiny campaign from raw frames to the report and compares the verdicts with
# those that testcases/expected.yaml states; anything else goes to nightjar.
set -eu
if [ ! -w "$NUMBA_CACHE_DIR" ]; then          # read-only container: compiled code moves to /tmp
  cp -r "$NUMBA_CACHE_DIR" /tmp/numba
  export NUMBA_CACHE_DIR=/tmp/numba
fi
if [ "${1:-}" = demo ]; then
  folder=${2:-demo}
  nightjar init "$folder" --profile tiny
  nightjar sim "$folder"
  nightjar run "$folder"
  nightjar verify "$folder" || true
  python -m harness.verify.expected "$folder"
else
  exec nightjar "$@"
fi
