#!/usr/bin/env bash
# Builds the image from a base made here (no image registry is needed), then runs it without network.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! command -v podman >/dev/null || ! command -v mmdebstrap >/dev/null || ! command -v runc >/dev/null; then
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends mmdebstrap buildah podman runc netavark \
    aardvark-dns containernetworking-plugins iptables >/dev/null
fi
cat > "$scratch/containers.conf" <<'C'
[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:16384"]
C
export CONTAINERS_CONF="$scratch/containers.conf"
if ! podman image exists localhost/debian:trixie-slim; then
  mirror=$(awk '/^URIs/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
  mmdebstrap --quiet --variant=minbase --include=ca-certificates trixie "$scratch/base.tar" "deb $mirror trixie main"
  podman import --quiet "$scratch/base.tar" localhost/debian:trixie-slim >/dev/null
fi
secret=()
[ -n "${PIP_CERT:-}" ] && secret=(--secret "id=ca_bundle,src=$PIP_CERT")
podman build --quiet --pull=never --network host "${secret[@]}" -t nightjar .
make --no-print-directory verify-container DOCKER=podman
