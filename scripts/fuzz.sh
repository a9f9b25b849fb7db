#!/usr/bin/env bash
# npm run fuzz: what nobody should send to all that reads it; see test/fuzz/README.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

build_project

# What is in use can be measured only when the garbage is collected.
exec node --expose-gc dist/test/fuzz/main.js "$@"
