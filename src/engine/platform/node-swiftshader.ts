/**
 * Unpacks SwiftShader, Google's software Vulkan, from the npm package @sparticuz/chromium once into the project's own
 * `.cache`, which needs neither root nor a system package. It does not open adapters (node-adapters.ts).
 */
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { brotliDecompress } from "node:zlib";
import { AdapterError, errorMessage } from "../../errors.ts";
import { packageFolder } from "./node-package.ts";

const require = createRequire(import.meta.url);
const driverFile = "vk_swiftshader_icd.json";
const loaderFile = "libvulkan.so.1";

/** The folder with the driver, which is unpacked if necessary; undefined if the npm package is not installed. */
export async function swiftShaderFolder(): Promise<string | undefined> {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  const source = findPackage();
  if (source === undefined) return undefined;
  // The cache in the home folder is for global installs, whose own folder is read-only. A shared folder such as /tmp
  // would not be safe, since the files are loaded as code.
  for (const cache of [join(packageFolder, ".cache"), join(homedir(), ".cache", "kto-webgpu")]) {
    const folder = join(cache, `swiftshader-${source.version}`);
    if (await isFile(join(folder, driverFile))) return folder;
    try {
      await unpack(join(source.folder, "bin", "swiftshader.tar.br"), folder);
      return folder;
    } catch (error) {
      if (isReadOnly(error)) continue;
      throw new AdapterError(`SwiftShader could not be unpacked into ${folder}: ${errorMessage(error)}.`, {
        cause: error,
      });
    }
  }
  return undefined;
}

/** The path of the ICD file, for a Vulkan loader's VK_ICD_FILENAMES. */
export function swiftShaderDriver(folder: string): string {
  return join(folder, driverFile);
}

/**
 * Puts the Vulkan loader of the npm package beside dawn.node, where Dawn looks first. Only for machines without a
 * libvulkan.so.1 of their own, which would be the better one. Returns whether it was put there now.
 */
export async function installLoader(folder: string): Promise<boolean> {
  const dawn = join(dirname(require.resolve("webgpu")), "dist", `linux-${process.arch}`);
  const target = join(dawn, loaderFile);
  if (await isFile(target)) return false;
  try {
    const temporary = `${target}.${process.pid}`;
    await copyFile(join(folder, loaderFile), temporary);
    await rename(temporary, target);
    return true;
  } catch (error) {
    if (isReadOnly(error)) return false;
    throw error;
  }
}

function findPackage(): { folder: string; version: string } | undefined {
  for (const base of require.resolve.paths("@sparticuz/chromium") ?? []) {
    try {
      const folder = join(base, "@sparticuz", "chromium");
      const manifest: { version: string } = require(join(folder, "package.json"));
      return { folder, version: manifest.version };
    } catch {
      // The package is not in this node_modules folder, so the next one up is tried.
    }
  }
  return undefined;
}

/** Unpacks into a temporary folder and renames it, so that neither a second process nor an interruption does harm. */
async function unpack(archive: string, folder: string): Promise<void> {
  const tar = await promisify(brotliDecompress)(await readFile(archive));
  await mkdir(dirname(folder), { recursive: true });
  const temporary = await mkdtemp(`${folder}.`);
  try {
    for (const { name, content } of tarFiles(tar)) {
      if (name === driverFile || name === loaderFile || name === "libvk_swiftshader.so") {
        await writeFile(join(temporary, name), content, { mode: 0o755 });
      }
    }
    await rename(temporary, folder);
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    if (!(await isFile(join(folder, driverFile)))) throw error;
  }
}

/** The plain files of a ustar archive: 512-byte headers (name at 0, octal size at 124, type at 156), padded bodies. */
function* tarFiles(tar: Buffer): Generator<{ name: string; content: Buffer }> {
  let offset = 0;
  while (offset + 512 <= tar.length && tar[offset] !== 0) {
    const name = tar.toString("latin1", offset, offset + 100).replace(/\0.*$/s, "");
    const size = Number.parseInt(tar.toString("latin1", offset + 124, offset + 136), 8);
    const type = tar.toString("latin1", offset + 156, offset + 157);
    offset += 512;
    if (type === "0" || type === "\0") yield { name: basename(name), content: tar.subarray(offset, offset + size) };
    offset += Math.ceil(size / 512) * 512;
  }
}

async function isFile(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true;
}

function isReadOnly(error: unknown): boolean {
  return error instanceof Error && "code" in error && ["EACCES", "EPERM", "EROFS"].includes(String(error.code));
}
