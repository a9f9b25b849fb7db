#!/usr/bin/env bash
# npm run bench: tsnbdfuse beside nbdfuse and others, on the same servers; see bench/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

need_programs required nbdkit:nbdkit nbdfuse:libnbd-bin nbdcopy:libnbd-bin fio:fio \
  fusermount3:fuse3 qemu-nbd:qemu-utils qemu-img:qemu-utils \
  qemu-storage-daemon:qemu-system-common mkfs.ext4:e2fsprogs e2fsck:e2fsprogs mount:mount \
  setpriv:util-linux diff:diffutils
build_project
bash scripts/prebuilds.sh

exec node dist/bench/bench.js "$@"
