#!/usr/bin/env bash
# Installs lavapipe, Mesa's Vulkan on the processor, on Debian, Ubuntu and their kin: the packages mesa-vulkan-drivers
# and libvulkan1. Dawn wants Mesa 23.1 or newer; where the release's own is older, the release's backports are used
# for this one installation. Does nothing where it is installed already. Needs root for anything else.
set -euo pipefail

oldest_mesa=23.1
source_file=/etc/apt/sources.list.d/kto-webgpu-backports.list

fail() {
  echo "install-lavapipe: $*" >&2
  exit 1
}

installed_mesa() {
  compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' > /dev/null || return 0
  dpkg-query --show --showformat='${db:Status-Status} ${Version}' libvulkan1 2> /dev/null | grep -q '^installed ' || return 0
  dpkg-query --show --showformat='${Version}' mesa-vulkan-drivers 2> /dev/null || true
}

new_enough() {
  [ -n "$1" ] && [ "$1" != "(none)" ] && dpkg --compare-versions "$1" ge "$oldest_mesa"
}

# Errors still come through, on stderr.
apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@" > /dev/null
}

install() {
  echo "Installing mesa-vulkan-drivers $candidate and libvulkan1 ..."
  apt install --no-install-recommends "$@" mesa-vulkan-drivers libvulkan1
}

command -v apt-get > /dev/null && command -v dpkg-query > /dev/null ||
  fail "this system has no apt; install your distribution's package with Mesa's lavapipe driver ($oldest_mesa or newer) and the Vulkan loader."

mesa=$(installed_mesa)
if new_enough "$mesa"; then
  echo "lavapipe is installed already (Mesa $mesa)."
  exit 0
fi

[ "$(id -u)" = 0 ] || fail "root is needed to install packages; run: sudo $0"

. /etc/os-release
codename=${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}
[ -n "$codename" ] || fail "/etc/os-release names no release; install mesa-vulkan-drivers $oldest_mesa or newer by hand."

# Sources that have nothing to do with Mesa may be out of reach; whether Mesa can be had shows below.
apt update || echo "install-lavapipe: apt-get update reported an error; going on with what it got." >&2

candidate=$(apt-cache policy mesa-vulkan-drivers | sed -n 's/^ *Candidate: //p')
if new_enough "$candidate"; then
  install
else
  backports=$codename-backports
  if [ -z "$(apt-get indextargets --format '$(SITE)' "Created-By: Packages" "Codename: $backports")" ]; then
    # The mirror that this machine gets the release itself from, so that proxies and private mirrors keep working.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Codename: $codename" | head -n 1)
    [ -n "$mirror" ] || fail "Mesa ${candidate:-from this release} is too old and no mirror of $codename is configured to take $backports from."
    keyring=
    for file in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/ubuntu-archive-keyring.gpg; do
      case $mirror in
        *ubuntu*) [[ $file == *ubuntu* ]] || continue ;;
        *) [[ $file == *debian* ]] || continue ;;
      esac
      [ -f "$file" ] && keyring="[signed-by=$file] "
    done
    trap 'rm -f "$source_file"' EXIT
    echo "deb $keyring$mirror $backports main" > "$source_file"
    apt update || echo "install-lavapipe: apt-get update reported an error; going on with what it got." >&2
  fi
  candidate=$(apt-cache madison mesa-vulkan-drivers | sed -n "s/^[^|]*| *\([^ |]*\) *|.*$backports.*/\1/p" | head -n 1)
  new_enough "$candidate" || fail "neither $codename nor $backports has Mesa $oldest_mesa or newer; use SwiftShader instead: npm i -D @sparticuz/chromium"
  install --target-release "$backports"
fi

mesa=$(installed_mesa)
new_enough "$mesa" || fail "the packages are installed, but there is no lavapipe driver of Mesa $oldest_mesa or newer (found: ${mesa:-none})."
echo "lavapipe is installed (Mesa $mesa)."
