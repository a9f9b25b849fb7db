# Sourced by the other scripts, in the folder of the project: what they need before they can start.
# shellcheck shell=bash

. scripts/debian-packages.sh

# Runs a command whose output matters only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    printf '\nfailed: %s\n' "$*" >&2
    return 1
  fi
  rm -f "$log"
}

# Is the first file missing, or older than any of the others?
outdated() {
  local made=$1 source
  shift
  [ -e "$made" ] || return 0
  for source; do
    [ "$source" -nt "$made" ] && return 0
  done
  return 1
}

check_node() {
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    echo 'Node.js with npm is needed, version 20.19 or newer: https://nodejs.org/' >&2
    return 1
  fi
  if ! node -e 'const [a, b] = process.versions.node.split(".").map(Number);
                process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)'; then
    echo "Node.js 20.19 or newer is needed; $(command -v node) is $(node --version)" >&2
    return 1
  fi
}

# The headers that came with node, where they did, so that node-gyp does not download them.
use_own_headers() {
  local prefix
  prefix=$(node -p 'require("path").resolve(process.execPath, "../..")')
  if [ -e "$prefix/include/node/node_api.h" ]; then
    export npm_package_config_node_gyp_nodedir=$prefix
  fi
}

# The addon for this machine, where it is missing or out of date.
build_addon() {
  local addon=native-bindings/build/Release/native.node
  if outdated "$addon" native-bindings/*.c native-bindings/*.h native-bindings/binding.gyp; then
    echo 'building the addon'
    use_own_headers
    quietly npm run addon
    touch "$addon"
  fi
}

# npm's packages, the addon and the compiled sources, each only where it is missing or out of date.
build_project() {
  check_node
  need_programs required gcc:gcc make:make python3:python3
  if outdated node_modules/.package-lock.json package-lock.json; then
    echo 'installing the npm packages'
    quietly npm ci --no-audit --no-fund --ignore-scripts
    touch node_modules/.package-lock.json
  fi
  build_addon
  echo 'compiling'
  # What was compiled from a source that is gone must not be tested, nor shipped.
  rm -rf dist
  npm run --silent build
}
