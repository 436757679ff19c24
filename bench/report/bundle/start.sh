#!/bin/sh
# kto-webgpu's report from a GPU, in one file: sh kto-gpu-report.sh [--quick] [--minutes N] [--adapter NAME] [--out FOLDER]
# Runs on Linux x64 with a GPU's Vulkan driver; needs sh, gzip and the usual small tools (cat, head, tail, mktemp, mkdir,
# chmod, rm). It unpacks itself into a temporary folder, which it removes, and sends nothing to anybody.
set -eu
node_at=@NODE_AT@ node_size=@NODE_SIZE@
libraries_at=@LIBRARIES_AT@ libraries_size=@LIBRARIES_SIZE@
files_at=@FILES_AT@ files_size=@FILES_SIZE@

system=$(uname -sm 2>/dev/null || echo "Linux x86_64")
if [ "$system" != "Linux x86_64" ]; then
  echo "This file runs on Linux x86_64, and this is $system; elsewhere a checkout does: npm run gpu-report." >&2
  exit 2
fi
folder=$(mktemp -d "${TMPDIR:-/tmp}/kto-gpu-report.XXXXXX")
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
piece() { tail -c "+$1" "$0" | head -c "$2"; }

if ! piece "$node_at" "$node_size" | gzip -dc > "$folder/node"; then
  echo "Node could not be unpacked into $folder: gzip and about 300 MB are needed; TMPDIR names another folder." >&2
  exit 7
fi
chmod 755 "$folder/node"
# For a system that has no C++ library, or one that is too old for Node or Dawn.
use_own_libraries() {
  [ ! -d "$folder/lib" ] || return 0
  mkdir "$folder/lib"
  piece "$libraries_at" "$libraries_size" | gzip -dc > "$folder/lib/both"
  head -c @LIBSTDCXX_SIZE@ "$folder/lib/both" > "$folder/lib/libstdc++.so.6"
  tail -c "+@LIBGCC_FROM@" "$folder/lib/both" > "$folder/lib/libgcc_s.so.1"
  LD_LIBRARY_PATH="$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export LD_LIBRARY_PATH
  echo "This system's C++ library is missing or too old; the one of this file is used."
}
"$folder/node" --version > /dev/null 2>&1 || use_own_libraries
if ! "$folder/node" --version > /dev/null; then
  echo "Node does not start from $folder, for the reason above; where programs may not run in that folder, TMPDIR names another." >&2
  exit 1
fi
piece "$files_at" "$files_size" > "$folder/files.br"
cat > "$folder/unpack.mjs" <<'END_OF_UNPACK'
@UNPACK@
END_OF_UNPACK
"$folder/node" "$folder/unpack.mjs" "$folder/files.br" "$folder"
rm "$folder/files.br"
dawn_loads() {
  "$folder/node" -e 'process.dlopen({ exports: {} }, process.argv[1])' "$folder/node_modules/webgpu/dist/linux-x64/dawn.node"
}
dawn_loads 2> /dev/null || use_own_libraries
if ! dawn_loads; then
  echo "Dawn cannot be loaded, for the reason above: it needs glibc 2.34 or newer." >&2
  exit 5
fi
status=0
"$folder/node" "$folder/app/main.js" "$@" || status=$?
exit "$status"
