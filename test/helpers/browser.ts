/** Headless Chromium for tests of pages: the dev dependency's, driven by playwright-core. */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Browser, chromium } from "playwright-core";
import { unpackChromium } from "../../scripts/chromium.mjs";

/** Whether the dev dependency's browser runs here. */
export const hasChromium: boolean = process.platform === "linux" && process.arch === "x64";

/** WebGPU on SwiftShader, in a process of its own. */
const WEBGPU = [
  ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"],
  ...["--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
];

/** @param webgpu whether pages have WebGPU, which is SwiftShader's */
export async function openChromium({ webgpu = false } = {}): Promise<Browser> {
  const executablePath = await unpackChromium();
  const args = ["--no-sandbox", "--no-zygote", "--lang=en-US", ...(webgpu ? WEBGPU : ["--disable-gpu"])];
  // Under LANG=C this Chromium calls its language en-US@posix, which no Intl takes.
  const env = { ...process.env, LANG: "en_US.UTF-8", LANGUAGE: "en_US" } as Record<string, string>;
  // The machine's own fonts, where it has some; the package's have few characters.
  if (existsSync("/etc/fonts/fonts.conf")) env.FONTCONFIG_PATH = "/etc/fonts";
  return await chromium.launch({ executablePath, args, env });
}

/** Where pictures of pages are left for people to look at. */
export function pictureFolder(): string {
  const folder = join(import.meta.dirname, "..", "..", ".cache", "screens");
  mkdirSync(folder, { recursive: true });
  return folder;
}
