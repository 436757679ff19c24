// node unpack.mjs ARCHIVE FOLDER: a line of JSON (path and size of every file), then the files' bytes, all under brotli.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const [archive = "", folder = ""] = process.argv.slice(2);
const bytes = brotliDecompressSync(readFileSync(archive));
let at = bytes.indexOf(10) + 1;
for (const { path, size } of JSON.parse(bytes.toString("utf8", 0, at))) {
  const file = join(folder, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, bytes.subarray(at, at + size));
  at += size;
}
// Dawn takes a Vulkan loader that lies beside it before the system's, which is the better one where there is one. Opening
// the library as an addon fails in any case; where it is missing, it fails by not being found.
try {
  process.dlopen({ exports: {} }, "libvulkan.so.1");
} catch (error) {
  if (/cannot open shared object file/.test(String(error))) {
    copyFileSync(
      join(folder, "loader", "libvulkan.so.1"),
      join(folder, "node_modules/webgpu/dist/linux-x64/libvulkan.so.1"),
    );
    console.log("This system has no Vulkan loader; the one of this file is used.");
  }
}
