# Sourced by prebuilds.sh: what is needed to compile for musl.
# shellcheck shell=bash

# fetch_musl DEBIAN_NAME FOLDER
#
# Unpacks musl and the headers of Linux for a processor (amd64, arm64) to a folder, where they are not there
# yet. They are Debian's packages, whose signatures apt checks, and are not installed: for that the machine
# would have to be made one of two architectures. Fails where there is no apt, or no such package.
fetch_musl() {
  local folder=$2 work
  [ ! -e "$folder" ] || return 0
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
  work=$(mktemp -d)
  if quietly unpack_musl "$1" "$work"; then
    mkdir -p "${folder%/*}"
    rm -rf "$folder"
    mv "$work/root" "$folder"
  fi
  rm -rf "$work"
  [ -e "$folder" ]
}

# unpack_musl DEBIAN_NAME FOLDER: in a state of apt's of its own, so that it needs no root and changes nothing.
unpack_musl() (
  cd "$2" || return 1
  mkdir -p state/lists/partial cache/archives/partial root
  : >status
  local options=(
    -q -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o "APT::Sandbox::User=$(id -un)"
    -o "Dir::State=$2/state" -o "Dir::State::status=$2/status" -o "Dir::Cache=$2/cache"
  )
  local package
  apt-get "${options[@]}" update || return 1
  apt-get "${options[@]}" download "musl:$1" "musl-dev:$1" "linux-libc-dev:$1" || return 1
  for package in *.deb; do dpkg-deb -x "$package" root || return 1; done
)
