#!/usr/bin/env bash
# What npm does before `npm pack` and `npm publish`: all that the package brings along, anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Standard output is npm's, who tells there what it has packed.
exec >&2
. scripts/setup.sh

build_project
bash scripts/prebuilds.sh
