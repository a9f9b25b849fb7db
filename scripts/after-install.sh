#!/usr/bin/env bash
# What npm does when it has changed node_modules of a clone, as `npm ci` does: compiles the addon for this machine.
# It is the script `dependencies`, since npm warns of `install` and `prepare` where the package is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh

build_addon
