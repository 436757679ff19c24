/**
 * Packs the report into one self-extracting shell file for Linux x64: this Node, Dawn, the sources and kernel tests
 * bundled to JavaScript, fixtures, the Vulkan loader. The file is start.sh, then Node and the C++ libraries under gzip,
 * which every system unpacks, then all else under brotli, which Node unpacks.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { swiftShaderFolder } from "../../../src/engine/platform/node-swiftshader.ts";
import { AdapterError, ConfigError, FileError } from "../../../src/errors.ts";
import type { Host } from "../host.ts";

interface Packed {
  /** In the folder that the bundle unpacks to. */
  readonly path: string;
  readonly content: Uint8Array;
}

const here = import.meta.dirname;

/**
 * Writes the bundle.
 *
 * @param effort of the compression, from 1 to 9
 * @returns its bytes
 */
export async function packBundle(file: string, host: Host, effort = 9): Promise<number> {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new ConfigError(
      `the bundle holds the Node that packs it and runs on Linux x64; this is ${process.platform} ${process.arch}.`,
    );
  }
  const [stdcxx, gcc] = ["libstdc++.so.6", "libgcc_s.so.1"].map(loadedLibrary);
  if (stdcxx === undefined || gcc === undefined) throw new Error("two libraries were asked for");
  const node = gzipSync(readFileSync(process.execPath), { level: effort });
  const libraries = gzipSync(Buffer.concat([stdcxx, gcc]), { level: effort });
  const files = archive(await contents(host), effort);
  const start = startText([node.length, libraries.length, files.length], stdcxx.length);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, Buffer.concat([start, node, libraries, files]), { mode: 0o755 });
  return start.length + node.length + libraries.length + files.length;
}

/** A shared library of this process, as Linux lists them. */
function loadedLibrary(name: string): Buffer {
  const maps = readFileSync("/proc/self/maps", "utf8").split("\n");
  const path = maps.map((line) => line.slice(line.indexOf("/"))).find((mapped) => mapped.includes(`/${name}`));
  if (path === undefined)
    throw new FileError(
      `This Node has no ${name} loaded, which the bundle carries along; pack it with a Node from nodejs.org.`,
    );
  return readFileSync(realpathSync(path));
}

/**
 * start.sh with the places of the pieces behind it. Numbers are padded, so that its own length does not depend on them.
 */
function startText(sizes: readonly [node: number, libraries: number, files: number], stdcxx: number): Buffer {
  const unpack = readFileSync(join(here, "unpack.mjs"), "utf8").trimEnd();
  const fill = (places: readonly number[]) => {
    const [nodeAt = 0, librariesAt = 0, filesAt = 0] = places;
    const numbers: Readonly<Record<string, number>> = {
      ...{ NODE_AT: nodeAt, NODE_SIZE: sizes[0], LIBRARIES_AT: librariesAt, LIBRARIES_SIZE: sizes[1] },
      ...{ FILES_AT: filesAt, FILES_SIZE: sizes[2], LIBSTDCXX_SIZE: stdcxx, LIBGCC_FROM: stdcxx + 1 },
    };
    return readFileSync(join(here, "start.sh"), "utf8").replace(/@(\w+)@/g, (_, name: string) => {
      if (name === "UNPACK") return unpack;
      const value = numbers[name];
      if (value === undefined) throw new Error(`start.sh has the place @${name}@, which nothing fills`);
      return name.endsWith("_AT") ? `'${value}'`.padEnd(14) : String(value);
    });
  };
  const length = Buffer.byteLength(fill([0, 0, 0]));
  // `tail -c +N` counts bytes from 1.
  const nodeAt = length + 1;
  const text = fill([nodeAt, nodeAt + sizes[0], nodeAt + sizes[0] + sizes[1]]);
  if (Buffer.byteLength(text) !== length) throw new Error("start.sh changed its length with its numbers");
  return Buffer.from(text);
}

/** What unpack.mjs reads. */
function archive(files: readonly Packed[], effort: number): Buffer {
  const index = files.map(({ path, content }) => ({ path, size: content.length }));
  const whole = Buffer.concat([Buffer.from(`${JSON.stringify(index)}\n`), ...files.map(({ content }) => content)]);
  return brotliCompressSync(whole, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: effort,
      [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
      [constants.BROTLI_PARAM_SIZE_HINT]: whole.length,
    },
  });
}

async function contents(host: Host): Promise<Packed[]> {
  const { root, commit, issues, versions, kernelTests } = host;
  const loader = await swiftShaderFolder();
  if (loader === undefined) {
    throw new AdapterError(
      'The Vulkan loader comes from the npm package "@sparticuz/chromium", which is missing; run "npm ci".',
    );
  }
  const own = (...paths: string[]) => paths.map((path) => ({ path, content: readFileSync(join(root, path)) }));
  const dawn = "node_modules/webgpu";
  const licenses = ["LICENSE", `${dawn}/LICENSE.md`];
  const nodeLicense = ["../LICENSE", "../share/doc/nodejs/copyright", "../share/doc/nodejs/LICENSE"]
    .map((path) => join(dirname(realpathSync(process.execPath)), path))
    .find((path) => existsSync(path));
  return [
    ...(await bundled(host)),
    ...own("package.json", ...licenses, `${dawn}/package.json`, `${dawn}/index.js`, `${dawn}/dist/linux-x64/dawn.node`),
    ...own(...fixtures(root)),
    { path: "loader/libvulkan.so.1", content: readFileSync(join(loader, "libvulkan.so.1")) },
    ...(nodeLicense === undefined ? [] : [{ path: "LICENSE.node", content: readFileSync(nodeLicense) }]),
    { path: "bundle.json", content: Buffer.from(JSON.stringify({ commit, issues, versions, kernelTests })) },
  ];
}

/** The models and rows that `kto gradcheck` reads. */
function fixtures(root: string): string[] {
  const folder = join(root, "test", "fixtures");
  const families = readdirSync(folder).filter((name) => existsSync(join(folder, name, "policy", "config.json")));
  const inModel = ["config.json", "model.safetensors"];
  return families.flatMap((family) => [
    ...["policy", "reference"].flatMap((model) => inModel.map((name) => `test/fixtures/${family}/${model}/${name}`)),
    `test/fixtures/${family}/data.jsonl`,
  ]);
}

/** The report, `kto` and the kernel tests as JavaScript modules that share their parts. */
async function bundled({ root, kernelTests }: Host): Promise<Packed[]> {
  const entries = [
    ...["main", "kernel-tests"].map((name) => [name, join(here, `${name}.ts`)]),
    ["kto", join(root, "scripts", "bundled-kto.ts")],
  ];
  const tests = kernelTests.map((name) => [`tests/${name}`, join(root, "test", "kernels", `${name}.test.ts`)]);
  const { outputFiles } = await build({
    entryPoints: Object.fromEntries([...entries, ...tests]),
    outdir: join(root, "app"),
    write: false,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node20",
    external: ["webgpu"],
    alias: { vitest: join(here, "vitest.ts") },
    // Packages in CommonJS require Node's own modules.
    banner: {
      js: 'import { createRequire as createRequireHere } from "node:module"; var require = createRequireHere(import.meta.url);',
    },
    logLevel: "error",
  });
  return outputFiles.map(({ path, contents }) => ({ path: relative(root, path), content: contents }));
}
