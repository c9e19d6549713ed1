#!/bin/sh
# `demo [FOLDER]` runs the tiny campaign from raw frames to the report and compares the verdicts with
# those that testcases/expected.yaml states; anything else goes to nightjar.
set -eu
# Started as root: become whoever owns the mounted workspace, so that what is written there is theirs;
# the image's own folder, which is open to all, belongs to nobody in particular.
if [ "$(id -u)" = 0 ]; then
  owner=$(stat -c %u:%g .)
  if [ "$owner" = 0:0 ] && [ -k . ]; then owner=1000:1000; fi
  become="setpriv --reuid ${owner%:*} --regid ${owner#*:} --clear-groups"
  if [ "${owner%:*}" != 0 ] && $become true 2>/dev/null; then exec $become "$0" "$@"; fi
fi
[ -w "${HOME:-/}" ] || export HOME=/tmp
case "${1:-}" in
  "" | -* | *help) ;;                           # nothing that needs compiled code
  *)
    if [ ! -w "$NUMBA_CACHE_DIR" ]; then        # read-only container: compiled code moves to /tmp
      cp -r "$NUMBA_CACHE_DIR" /tmp/numba
      export NUMBA_CACHE_DIR=/tmp/numba
    fi ;;
esac
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
