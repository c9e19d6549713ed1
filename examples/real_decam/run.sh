#!/bin/sh
# run.sh FOLDER [WORKSPACE]: ingest the images of FOLDER, run the chain, judge and report.
set -eu
folder=${1:?usage: run.sh FOLDER [WORKSPACE]}
here=$(cd "$(dirname "$0")/../.." && pwd)
workspace=${2:-$here/campaigns/real_decam}
make --no-print-directory -C "$here" env
nightjar="$here/.venv/bin/nightjar"
test -e "$workspace/nightjar.toml" || "$nightjar" init "$workspace" --camera decam
"$nightjar" ingest "$workspace" "$folder"/*_ooi_*.fits*
# The weight maps of single images are wrong by up to 4 %: their noise is measured.
# Exit code 1: some units failed for a known cause.
"$nightjar" run "$workspace" --set calibrate.rescale_variance=true || [ $? -eq 1 ]
"$nightjar" verify "$workspace"
