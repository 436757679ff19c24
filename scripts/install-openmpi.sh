#!/usr/bin/env bash
# Installs Open MPI on Debian, Ubuntu and their kin: mpirun and the library that `mpirun kto train` loads. Does nothing
# where both are there already. Needs root for anything else.
set -euo pipefail

fail() {
  echo "install-openmpi: $*" >&2
  exit 1
}

has_library() {
  ldconfig -p 2> /dev/null | grep -q 'libmpi\.so\.40 '
}

if command -v mpirun > /dev/null && has_library; then
  echo "Open MPI is installed already ($(mpirun --version | head -n 1))."
  exit 0
fi

command -v apt-get > /dev/null || fail "this system has no apt; install your distribution's Open MPI, or load the cluster's module."
[ "$(id -u)" = 0 ] || fail "root is needed to install packages; run: sudo $0"

# Errors still come through, on stderr. Another installation may hold the lock for a while.
apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@" > /dev/null
}

# Sources that have nothing to do with Open MPI may be out of reach; whether it can be had shows below.
apt update || echo "install-openmpi: apt-get update reported an error; going on with what it got." >&2
echo "Installing openmpi-bin ..."
apt install --no-install-recommends openmpi-bin
command -v mpirun > /dev/null && has_library || fail "the package is installed, but there is no mpirun or no libmpi.so.40."
echo "Open MPI is installed ($(mpirun --version | head -n 1))."
