#!/usr/bin/env bash
# What the recording in the README shows: types the commands of the main job as somebody would, and runs them.
set -euo pipefail

prompt() { printf '\033[32m$\033[0m '; }

# do_it COMMAND [SECONDS]: types it, runs it, and leaves time to read what came of it.
do_it() {
  local i
  prompt
  sleep 0.5
  for ((i = 0; i < ${#1}; i++)); do
    printf '%s' "${1:i:1}"
    sleep 0.03
  done
  sleep 0.3
  printf '\n'
  eval "$1"
  sleep "${2:-0.7}"
}

do_it 'qemu-img create -q -f qcow2 disk.qcow2 1G'
do_it 'touch disk.raw'
do_it 'tsnbdfuse -P pid disk.raw disk.qcow2 &'
until [ -s pid ]; do sleep 0.05; done
do_it 'ls -l disk.raw' 1
do_it 'sgdisk -n 1 -t 1:8300 disk.raw | tail -n 1' 1
do_it 'mkfs.ext4 -q -E offset=1048576 -d tree disk.raw 1000M' 1
do_it 'fusermount3 -u disk.raw; wait'
do_it 'qemu-img check disk.qcow2' 1.5
do_it 'ls -sh disk.qcow2' 1
prompt
sleep 3
