#!/usr/bin/env bash
# Brings Mesa 26's lavapipe, which has subgroup matrices and compiles kernels in a third of the time that Debian 12's takes,
# into a folder of its own: packages of Debian 13 and its backports, unpacked and not installed, with a wrapper "node" that
# runs this system's Node on their libraries. It changes nothing else on the system and needs no root: 63 MB to download,
# 310 MB on disk, 10 seconds. A second call finds the folder ready. The last line is the wrapper's path. Exit code 3: this system cannot (no apt, no x64, no Debian mirror in reach).
set -euo pipefail

folder=${1:?usage: scripts/newer-lavapipe.sh FOLDER}
release=trixie

cannot() {
  echo "newer-lavapipe: $*" >&2
  exit 3
}

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ -f "$folder/ready" ]; then
  echo "$folder/node"
  exit 0
fi

[ "$(uname -sm)" = "Linux x86_64" ] || cannot "only Linux on x64 can be served."
for tool in apt-get dpkg-deb node; do
  command -v "$tool" > /dev/null || cannot "this system has no $tool."
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keyring" ] || cannot "there is no $keyring to check Debian's signatures with (package debian-archive-keyring)."
# The mirror that this machine gets its own packages from, so that proxies and private mirrors keep working.
mirror=$(apt-get indextargets --format '$(REPO_URI)' "Created-By: Packages" "Origin: Debian" 2> /dev/null | grep -v security | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}

work=$(mktemp -d "$folder/unpacking-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,parts,root}
: > "$work/status"
for suite in $release $release-backports; do
  echo "deb [signed-by=$keyring] $mirror $suite main"
done > "$work/sources.list"
# An apt with state, cache and sources of its own, on a system without any package.
apt() {
  apt-get -qq -y -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" \
    -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" -o Dir::Etc::SourceList="$work/sources.list" \
    -o Dir::Etc::SourceParts="$work/parts" -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$work/parts" \
    -o APT::Sandbox::User= -o APT::Architecture=amd64 -o Acquire::Languages=none -o Debug::NoLocking=true \
    -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@"
}

echo "Bringing Mesa of $release-backports into $folder ..." >&2
apt update > /dev/null || cannot "the package lists of $release cannot be read from $mirror."
apt --no-install-recommends -t "$release-backports" --download-only install mesa-vulkan-drivers libvulkan1 > /dev/null ||
  cannot "the packages of $release-backports cannot be downloaded from $mirror."
for package in "$work"/archives/*.deb; do
  dpkg-deb -x "$package" "$work/root"
done

libraries=$folder/root/usr/lib/x86_64-linux-gnu
rm -rf "$folder/root"
mv "$work/root" "$folder/root"
[ -f "$libraries/libvulkan_lvp.so" ] || cannot "the packages hold no lavapipe."
cat > "$folder/lavapipe.json" << JSON
{ "file_format_version": "1.0.1", "ICD": { "api_version": "1.4.0", "library_path": "$libraries/libvulkan_lvp.so" } }
JSON
# Programs that this Node starts by its own path are to be this wrapper too.
cat > "$folder/exec-path.mjs" << JS
process.execPath = "$folder/node";
JS
cat > "$folder/node" << SH
#!/bin/sh
export VK_DRIVER_FILES="$folder/lavapipe.json" VK_ICD_FILENAMES="$folder/lavapipe.json"
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$(readlink -f "$(command -v node)")" --import "$folder/exec-path.mjs" "\$@"
SH
chmod +x "$folder/node"
touch "$folder/ready"
echo "$folder/node"
