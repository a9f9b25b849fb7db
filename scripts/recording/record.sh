#!/usr/bin/env bash
# npm run recording: makes main-job.svg anew, which the README shows, from what session.sh does in a terminal.
# With a folder as argument, the still pictures of it are written there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/setup.sh

need_programs required termtosvg:termtosvg script:bsdutils sgdisk:gdisk mkfs.ext4:e2fsprogs \
  qemu-nbd:qemu-utils qemu-img:qemu-utils fusermount3:fuse3
build_project

readonly GEOMETRY=84x19 TEMPLATE=window_frame
here=$PWD/scripts/recording
stills=${1:+$(realpath -m "$1")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$PWD/bin:$PATH
cp -r src/disk "$work/tree"
cd "$work"
# termtosvg wants a terminal, also where there is none.
script -qec "termtosvg record '$work/cast' -g $GEOMETRY -c 'bash $here/session.sh'" /dev/null </dev/null
termtosvg render cast "$here/main-job.svg" -t "$TEMPLATE" -m 40 -D 4000
if [ -n "$stills" ]; then
  mkdir -p "$stills"
  termtosvg render cast "$stills" -s -t "$TEMPLATE" -m 40
fi
