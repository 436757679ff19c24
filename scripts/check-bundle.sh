#!/usr/bin/env bash
# Runs the report's bundle where there is nothing but libc, a shell with a few small tools, and lavapipe: in a chroot that
# is made here and removed. As root, on a Debian or Ubuntu that has lavapipe (scripts/install-lavapipe.sh).
#
#   scripts/check-bundle.sh [bundle, default: a new one] [-- options of the report, default: --quick]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bundle=""
if [ $# -gt 0 ] && [ "$1" != "--" ]; then
  bundle=$1
  shift
fi
[ "${1:-}" = "--" ] && shift
options=("$@")
[ ${#options[@]} -gt 0 ] || options=(--quick)

[ "$(id -u)" = 0 ] || { echo "A chroot needs root." >&2; exit 2; }
driver=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2> /dev/null | head -n 1) || true
[ -n "$driver" ] || { echo "lavapipe is not installed: scripts/install-lavapipe.sh" >&2; exit 5; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
if [ -z "$bundle" ]; then
  bundle=$root/new.sh
  npm run --silent gpu-report -- --bundle "$bundle"
fi

# A file where it lies, or at another place, with the shared libraries that it loads.
put() {
  local to=${2:-$1}
  mkdir -p "$root$(dirname "$to")"
  cp -L "$1" "$root$to"
  ldd "$1" 2> /dev/null | grep -oE '/[^ ]+' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    [ -e "$root$library" ] || cp -L "$library" "$root$library"
  done
}

put "$(command -v dash)" /bin/sh
for tool in cat chmod head mkdir mktemp rm tail uname gzip; do put "$(command -v "$tool")" "/bin/$tool"; done
# All of libc: programs that were built for an older one still ask for its former parts.
for part in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1; do put "/lib/x86_64-linux-gnu/$part"; done
shell_libraries=$(find "$root" -name '*.so*' | wc -l)
lavapipe=$(find /usr/lib -name libvulkan_lvp.so | head -n 1)
put "$lavapipe"
mkdir -p "$root$(dirname "$driver")" "$root/tmp" "$root/dev" "$root/home"
cp "$driver" "$root$driver"
mknod -m 666 "$root/dev/null" c 1 3
cp "$bundle" "$root/kto-gpu-report.sh"

echo "The chroot holds, beside $(find "$root" -name '*.so*' | wc -l) shared libraries (libc and the shell's: $shell_libraries, the others lavapipe's):"
(cd "$root" && find . ! -type d ! -name '*.so*' -printf '  /%P %s bytes\n' | sort)
echo "A Vulkan loader, Node, /proc and /sys are not among them."
echo "Running: sh /kto-gpu-report.sh ${options[*]}"
status=0
env -i PATH=/bin HOME=/home "$(PATH=$PATH:/usr/sbin command -v chroot)" "$root" /bin/sh /kto-gpu-report.sh "${options[@]}" --out /report || status=$?
echo "Exit code $status."
if [ -d "$root/report" ]; then ls -l "$root/report"; fi
left=$(ls "$root/tmp")
[ -z "$left" ] || { echo "Left behind in /tmp: $left" >&2; exit 1; }
exit "$status"
