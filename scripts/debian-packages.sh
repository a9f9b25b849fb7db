# Sourced by the other scripts: installs the Debian packages of programs that are missing.
# shellcheck shell=bash

# Debian keeps the programs of root where a user's PATH does not lead.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# need_programs required|wanted PROGRAM:PACKAGE...
#
# Installs the packages of the programs that are not there, as root on Debian; elsewhere says which
# they are. Fails when a required program is missing after that.
need_programs() {
  local how=$1 pair packages=() missing=()
  shift
  for pair; do
    command -v "${pair%%:*}" >/dev/null || packages+=("${pair##*:}")
  done
  [ ${#packages[@]} -gt 0 ] || return 0

  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Debian packages: ${packages[*]}"
    local log
    log=$(mktemp)
    if ! {
      apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
          "${packages[@]}"
    } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
    fi
    rm -f "$log"
  fi

  packages=()
  for pair; do
    command -v "${pair%%:*}" >/dev/null && continue
    [[ " ${missing[*]} " = *" ${pair%%:*} "* ]] || missing+=("${pair%%:*}")
    packages+=("${pair##*:}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "not installed: ${missing[*]}" >&2
  echo "install them on Debian as root with: apt-get install ${packages[*]}" >&2
  [ "$how" = wanted ]
}
