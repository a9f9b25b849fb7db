#!/usr/bin/env bash
# npm test: all that has to hold before a change is good, from a fresh clone on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

# In CI a test may not be skipped for want of a program (test/support/requires.ts).
servers=wanted
if [ -n "${CI:-}" ] && [ "$CI" != false ]; then servers=required; fi
need_programs $servers qemu-nbd:qemu-utils nbdkit:nbdkit nbd-server:nbd-server \
  nbdcopy:libnbd-bin openssl:openssl sgdisk:gdisk fusermount3:fuse3 fio:fio nc:netcat-openbsd \
  mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.vfat:dosfstools unshare:util-linux losetup:mount \
  ip:iproute2 nsenter:util-linux \
  sfdisk:fdisk fdisk:fdisk parted:parted partx:util-linux python3:python3 setpriv:util-linux \
  man:man-db mandoc:mandoc curl:curl strace:strace zsh:zsh fish:fish xz:xz-utils fuser:psmisc mcopy:mtools \
  fuse2fs:fuse2fs sshd:openssh-server ssh:openssh-client tar:tar mount:mount \
  systemd-analyze:systemd

build_project
echo 'compiling the addons of the package'
if [ $servers = required ]; then all=(--all); else all=(); fi
bash scripts/prebuilds.sh "${all[@]}"

echo 'linting'
npm run --silent lint

# The real servers and mounts come last: what a unit test finds is found sooner and told better.
# A test has deadlines of its own; this one ends a file of them that hangs all the same.
run_tests() {
  local files
  mapfile -t files < <(find "$@" -name '*.test.js' -print | sort)
  node --test --test-reporter=spec --test-timeout=600000 "${options[@]}" "${files[@]}"
}
options=()
echo 'unit tests'
run_tests dist/test -path dist/test/e2e -prune -o
# One file at a time: some change what the machine has one of, as the mode of /dev/fuse.
options=(--test-concurrency=1)
echo 'end-to-end tests'
run_tests dist/test/e2e
# With another seed each time, which it tells.
echo 'torture, for half a minute'
node dist/test/torture/torture.js --minutes 0.5
echo 'all is well'
