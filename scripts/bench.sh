#!/usr/bin/env bash
# npm run bench: tsnbdfuse beside nbdfuse, on the same server; see bench/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

need_programs required nbdkit:nbdkit nbdfuse:libnbd-bin fio:fio fusermount3:fuse3
build_project

exec node dist/bench/bench.js "$@"
