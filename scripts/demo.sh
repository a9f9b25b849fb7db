#!/usr/bin/env bash
# npm run demo: the main job, as a user would type it, and a check of what came of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

need_programs required sgdisk:gdisk mkfs.ext4:e2fsprogs
need_programs wanted qemu-nbd:qemu-utils fusermount3:fuse3
build_project

PATH=$PWD/bin:$PATH
unmount='fusermount3 -u'
if ! command -v fusermount3 >/dev/null; then unmount=umount; fi

# Seconds for a mount to be there, and for the command to end after the unmount.
readonly DEADLINE=30
readonly OFFSET=1048576

work=$(mktemp -d)
mkdir "$work/run"
# The socket of the server goes there, so that it is seen when it is left behind.
export XDG_RUNTIME_DIR=$work/run
# All that is started below carries it, by which it is found in /proc.
export TSNBDFUSE_DEMO_MARK=$work
server=''
jobs=()
checked=''

cleanup() {
  trap - EXIT
  umount -l "$work/disk.raw" 2>/dev/null || fusermount3 -u -z "$work/disk.raw" 2>/dev/null || :
  if [ -n "$server" ]; then kill "$server" 2>/dev/null || :; fi
  cd /
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
  printf '\nFAILED: %s\n' "$*" >&2
  exit 1
}

# Prints a command as it would be typed, and runs just that.
run() {
  printf '$ %s\n' "$1"
  eval "$1" || fail "$1"
}

# The same for a command that stays, which is ready when it has written its pidfile.
start() {
  printf '$ %s &\n' "$1"
  rm -f tsnbdfuse.pid
  eval "$1 &"
  server=$!
  local end=$((SECONDS + DEADLINE))
  until [ -e tsnbdfuse.pid ]; do
    kill -0 "$server" 2>/dev/null || fail "$1 ended before the disk was mounted"
    [ $SECONDS -lt $end ] || fail "the disk was not mounted within $DEADLINE s"
    sleep 0.05
  done
}

# The processes that carry the mark, but for this script and the subshells of it.
leftover_processes() {
  local folder
  for folder in /proc/[0-9]*; do
    if grep -qz "^TSNBDFUSE_DEMO_MARK=$work\$" "$folder/environ" 2>/dev/null &&
      [ "$(cat "$folder/comm" 2>/dev/null)" != grep ]; then
      tr '\0' ' ' <"$folder/cmdline" && echo
    fi
  done 2>/dev/null
}

# After the unmount: it has to end by itself, with 0, and to leave nothing.
finish() {
  local end=$((SECONDS + DEADLINE)) status=0 left
  while kill -0 "$server" 2>/dev/null; do
    [ $SECONDS -lt $end ] || fail "tsnbdfuse did not end within $DEADLINE s after the unmount"
    sleep 0.05
  done
  wait "$server" || status=$?
  server=''
  [ "$status" = 0 ] || fail "tsnbdfuse ended with status $status"
  ! grep -q " $work/" /proc/self/mounts || fail 'something is still mounted'
  [ -z "$(ls -A "$XDG_RUNTIME_DIR")" ] || fail "left in $XDG_RUNTIME_DIR: $(ls "$XDG_RUNTIME_DIR")"
  [ ! -e tsnbdfuse.pid ] || fail 'the pidfile is still there'
  left=$(leftover_processes)
  [ -z "$left" ] || fail "still running: $left"
}

# Checks what the main job leaves on the disk. The file system is seen where the partition begins.
check_disk() {
  local place="disk.raw?offset=$OFFSET"
  run "sgdisk -v disk.raw | grep 'No problems found'"
  run "sgdisk -p disk.raw | grep ' 8300 '"
  run "e2fsck -fn '$place' 2>&1"
  run "debugfs -R 'cat /hello.txt' '$place' 2>&1 | grep 'written through tsnbdfuse'"
  run "debugfs -R 'dump /random.bin copy.bin' '$place' 2>/dev/null"
  run 'sha256sum files/random.bin copy.bin'
  cmp files/random.bin copy.bin || fail 'the data read back differs'
  rm copy.bin
}

# main_job SERVER...: partitions the disk of a server, makes a file system with files in it, checks
# all of that, and unmounts.
main_job() {
  start "tsnbdfuse -P tsnbdfuse.pid disk.raw [ $* ]"
  run 'ls -lh disk.raw'
  run 'sgdisk -n 1 -t 1:8300 disk.raw'
  run "mkfs.ext4 -q -d files -E offset=$OFFSET disk.raw 1000M"
  check_disk
  run "$unmount disk.raw"
  finish
  jobs+=("[ $* ]: partitioned, formatted, files written and read back, unmounted")
}

# check_again SERVER...: mounts the disk of main_job once more, as one that may not be changed.
check_again() {
  start "tsnbdfuse -r -P tsnbdfuse.pid disk.raw [ $* ]"
  check_disk
  run "$unmount disk.raw"
  finish
  jobs+=("[ $* ]: mounted once more, read-only, and all of it found there")
}

cd "$work"
printf '\n# A disk in memory, with nothing needed but this package.\n'
run 'touch disk.raw'
run 'mkdir files'
run "echo 'written through tsnbdfuse' >files/hello.txt"
run 'head -c 8M /dev/urandom >files/random.bin'
main_job tsnbdkit memory 1G

printf '\n# An image file.\n'
run 'truncate -s 1G image.img'
main_job tsnbdkit file image.img
check_again tsnbdkit file image.img

if command -v qemu-nbd >/dev/null && command -v qemu-img >/dev/null; then
  printf '\n# A qcow2 image.\n'
  run 'qemu-img create -q -f qcow2 disk.qcow2 1G'
  main_job qemu-nbd -f qcow2 disk.qcow2
  run 'qemu-img check disk.qcow2'
  check_again qemu-nbd -f qcow2 disk.qcow2
  run 'qemu-img check disk.qcow2'
  checked='; disk.qcow2 is clean (qemu-img check) after each unmount'
else
  printf '\n# qemu-utils is not installed: the main job with qcow2 is left out.\n'
fi

printf '\nwhat was done:\n'
printf '  %s\n' "${jobs[@]}"
printf 'verified, each time: the partition table, the file system (e2fsck -fn), files and checksums,'
printf ' exit status 0, nothing left behind%s.\n' "$checked"
