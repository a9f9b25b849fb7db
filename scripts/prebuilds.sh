#!/usr/bin/env bash
# npm run prebuilds [-- --all]: compiles the addon for the machines that the package brings one along for,
# to prebuilds/, in the layout of prebuildify. What cannot be compiled here is named and left out, which with
# --all is a failure. (By the name of prebuild, npm would run it before each build.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/setup.sh
. scripts/musl.sh

# What Node.js calls a processor, what compilers call it, what Debian calls it, and Debian's compiler.
readonly MACHINES=(
  'x64 x86_64 amd64 gcc-x86-64-linux-gnu libc6-dev-amd64-cross'
  'arm64 aarch64 arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
)
readonly FOLDER=native-bindings
# Below it is what these need and nobody keeps.
readonly CACHE=node_modules/.cache/tsnbdfuse

made=()
missing=()

# A list of binding.gyp, a line for each.
from_gyp() {
  node -e 'const { targets } = JSON.parse(require("fs").readFileSync(process.argv[1], "utf8"));
           for (const each of targets[0][process.argv[2]]) console.log(each)' "$FOLDER/binding.gyp" "$1"
}

# The headers of Node.js: those that came with it, or else the ones that node-gyp downloads.
node_headers() {
  local own
  own=$(node -p 'require("path").resolve(process.execPath, "../../include/node")')
  if [ ! -e "$own/node_api.h" ]; then
    quietly node-gyp install --ensure --loglevel=error --devdir "$PWD/$CACHE/node-gyp"
    own=$PWD/$CACHE/node-gyp/$(node -p process.versions.node)/include/node
  fi
  printf '%s\n' "$own"
}

# compiler PROCESSOR: prints the name of one that compiles for it.
compiler() {
  if command -v "$1-linux-gnu-gcc" >/dev/null; then
    printf '%s\n' "$1-linux-gnu-gcc"
  elif [[ $(gcc -dumpmachine 2>/dev/null) = "$1"-* ]]; then
    printf 'gcc\n'
  else
    return 1
  fi
}

# compile FILE COMPILER ARGUMENTS...
compile() {
  local file=$1 compiler=$2 unfinished=$1.$$
  shift 2
  mkdir -p "${file%/*}"
  # Symbols are found when it is loaded, and not later: what a system lacks is told at once.
  quietly "$compiler" "${flags[@]}" -I "$headers" -O3 -fPIC -shared -s -Wl,--as-needed,-z,relro,-z,now \
    "${sources[@]}" "$@" -o "$unfinished"
  # Somebody may be loading the one that was there.
  mv "$unfinished" "$file"
}

is_current() {
  ! outdated "$1" "$FOLDER"/*.c "$FOLDER"/*.h "$FOLDER/binding.gyp" scripts/prebuilds.sh scripts/musl.sh
}

# prebuild NODE_NAME PROCESSOR DEBIAN_NAME COMPILER_PACKAGE LIBRARY_PACKAGE
prebuild() {
  local glibc=prebuilds/linux-$1/tsnbdfuse.glibc.node musl=prebuilds/linux-$1/tsnbdfuse.musl.node
  local gcc='' file
  if ! is_current "$glibc" || ! is_current "$musl"; then
    # Where it cannot be compiled again, an old one must not get into the package.
    rm -f "$glibc" "$musl"
    gcc=$(compiler "$2") || need_programs wanted "$2-linux-gnu-gcc:$4" "$2-linux-gnu-gcc:$5"
    if gcc=$(compiler "$2"); then
      compile "$glibc" "$gcc"
      prebuild_musl "$musl" "$gcc" "$2" "$3"
    fi
  fi
  for file in "$glibc" "$musl"; do
    if [ -e "$file" ]; then made+=("$file"); else missing+=("$file"); fi
  done
}

# prebuild_musl FILE COMPILER PROCESSOR DEBIAN_NAME
prebuild_musl() {
  local root=$CACHE/musl-$4
  if ! fetch_musl "$4" "$root"; then
    echo "no musl for $4: it is taken from Debian's packages, by apt-get" >&2
    return 0
  fi
  compile "$1" "$2" \
    -nostdinc -isystem "$root/usr/include/$3-linux-musl" -isystem "$("$2" -print-file-name=include)" \
    -idirafter "$root/usr/include" -idirafter "$root/usr/include/$3-linux-gnu" \
    -nostdlib -L "$root/lib/$3-linux-musl" -lc -lgcc
}

# What is checked by warnings is checked where the addon is compiled for this machine.
mapfile -t flags < <(from_gyp cflags | grep -v '^-W'; from_gyp defines | sed 's/^/-D/')
mapfile -t sources < <(from_gyp sources | sed "s|^|$FOLDER/|")
headers=$(node_headers)

# Nothing of what a release no longer has may get into the package.
for file in prebuilds/*/*.node; do
  case $file in
  prebuilds/linux-x64/tsnbdfuse.glibc.node | prebuilds/linux-x64/tsnbdfuse.musl.node) ;;
  prebuilds/linux-arm64/tsnbdfuse.glibc.node | prebuilds/linux-arm64/tsnbdfuse.musl.node) ;;
  *) rm -f "$file" ;;
  esac
done
for machine in "${MACHINES[@]}"; do
  # shellcheck disable=SC2086 # its words
  prebuild $machine
done

echo 'prebuilt addons:'
printf '  %s\n' "${made[@]:-none}"
if [ ${#missing[@]} -gt 0 ]; then
  echo 'NOT compiled, and not in the package:' >&2
  printf '  %s\n' "${missing[@]}" >&2
  [ "${1-}" != --all ]
fi
