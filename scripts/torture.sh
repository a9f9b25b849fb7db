#!/usr/bin/env bash
# npm run torture: mounts in use while their servers die, stall and lie; see CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

need_programs wanted qemu-nbd:qemu-utils qemu-img:qemu-utils nbdkit:nbdkit nbd-server:nbd-server \
  python3:python3 fusermount3:fuse3 ip:iproute2 nsenter:util-linux unshare:util-linux
build_project

exec node dist/test/torture/torture.js "$@"
