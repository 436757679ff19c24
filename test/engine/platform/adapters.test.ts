/** Which adapter is chosen, on made-up adapters and on those of this machine. */

import { afterEach, describe, expect, test, vi } from "vitest";
import {
  type AdapterIdentity,
  chooseAdapter,
  classifyAdapter,
  describeAdapter,
  noAdapterMessage,
  rankAdapters,
} from "../../../src/engine/platform/adapters.ts";
import { platform } from "../../../src/engine/platform/index.ts";
import { AdapterError } from "../../../src/errors.ts";

/** What Dawn and browsers report of an adapter. */
const facts = {
  h100: { vendor: "nvidia", architecture: "hopper", device: "nvidia-h100-80gb-hbm3", description: "NVIDIA: 550.54.15" },
  integrated: { vendor: "intel", architecture: "xe-lpg", device: "intel-arc", description: "Intel: Mesa 25.0.7" },
  apple: { vendor: "apple", architecture: "metal-3", device: "", description: "" },
  lavapipe: {
    vendor: "mesa",
    architecture: "software",
    device: "llvmpipe-llvm-15-0-6-256-bits-",
    description: "llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)",
    isFallbackAdapter: true,
  },
  swiftShader: {
    vendor: "google",
    architecture: "swiftshader",
    device: "swiftshader-device-subzero-",
    description: "SwiftShader driver 5.0.0",
    isFallbackAdapter: true,
  },
  warp: { vendor: "microsoft", architecture: "warp", device: "", description: "Microsoft Basic Render Driver" },
} satisfies Record<string, Omit<AdapterIdentity, "isFallbackAdapter"> & { isFallbackAdapter?: boolean }>;

function found(name: keyof typeof facts) {
  const one: AdapterIdentity = { isFallbackAdapter: false, ...facts[name] };
  return { name, kind: classifyAdapter(one), description: describeAdapter(one) };
}

afterEach(() => {
  vi.unstubAllEnvs();
});

describe("classification", () => {
  test.each([
    ["h100", "hardware"],
    ["integrated", "hardware"],
    ["apple", "hardware"],
    ["lavapipe", "lavapipe"],
    ["swiftShader", "swiftshader"],
    ["warp", "software"],
  ] as const)("%s is %s", (name, kind) => {
    expect(found(name).kind).toBe(kind);
  });

  test("an unknown adapter that calls itself a fallback is software, whatever its name", () => {
    const one = { vendor: "acme", architecture: "x", device: "y", description: "z", isFallbackAdapter: true };
    expect(classifyAdapter(one)).toBe("software");
  });

  test("descriptions say a thing once and never come out empty", () => {
    expect(found("lavapipe").description).toBe("llvmpipe: Mesa 25.0.7 (LLVM 15.0.6)");
    expect(found("h100").description).toBe("nvidia hopper nvidia-h100-80gb-hbm3 NVIDIA: 550.54.15");
    expect(found("apple").description).toBe("apple metal-3");
    const hidden = { vendor: "", architecture: "", device: "", description: "", isFallbackAdapter: false };
    expect(describeAdapter(hidden)).not.toBe("");
  });
});

describe("choice", () => {
  const worstFirst = [found("warp"), found("swiftShader"), found("lavapipe"), found("integrated"), found("h100")];

  test("hardware comes before lavapipe, lavapipe before SwiftShader, any other software last", () => {
    const ranked = rankAdapters(worstFirst);
    expect(ranked.map((one) => one.name)).toEqual(["integrated", "h100", "lavapipe", "swiftShader", "warp"]);
    expect(chooseAdapter(ranked, "auto").name).toBe("integrated");
    expect(chooseAdapter(rankAdapters([found("swiftShader"), found("lavapipe")]), "auto").name).toBe("lavapipe");
  });

  test.each([
    ["hardware", "integrated"],
    ["lavapipe", "lavapipe"],
    ["SwiftShader", "swiftShader"],
    ["software", "lavapipe"],
    ["1", "h100"],
    ["4", "warp"],
    ["H100", "h100"],
    [" llvmpipe ", "lavapipe"],
    ["", "integrated"],
  ])('selector "%s" means %s', (selector, name) => {
    expect(chooseAdapter(rankAdapters(worstFirst), selector).name).toBe(name);
  });

  test.each(["5", "-1", "radeon"])('selector "%s" matches nothing, and the error lists what there is', (selector) => {
    const choose = () => chooseAdapter(rankAdapters(worstFirst), selector);
    expect(choose).toThrow(AdapterError);
    expect(choose).toThrow(`"${selector}"`);
    expect(choose).toThrow("1 = hardware: nvidia hopper");
  });

  test("a kind is not taken for a part of a name: without a GPU, hardware is refused", () => {
    expect(() => chooseAdapter([found("lavapipe")], "hardware")).toThrow(AdapterError);
  });

  test("the sentence for no adapter names what mends it on this host", () => {
    expect(noAdapterMessage("linux")).toMatch(/scripts\/install-lavapipe\.sh.*npm i -D @sparticuz\/chromium/);
    expect(noAdapterMessage("win32")).toContain("Direct3D 12");
    expect(noAdapterMessage("linux").split("\n")).toHaveLength(1);
  });
});

describe("this machine", () => {
  test("auto gives the first of the list, and a device can be opened on it", async () => {
    const [best] = await platform.listAdapters();
    const chosen = await platform.requestAdapter("auto");
    expect(chosen.description).toBe(best?.description);
    const device = await chosen.adapter.requestDevice();
    device.destroy();
  });

  test("KTO_ADAPTER decides where no selector is given; a selector wins over it", async () => {
    vi.stubEnv("KTO_ADAPTER", "no such adapter");
    await expect(platform.requestAdapter()).rejects.toThrow('"no such adapter"');
    await expect(platform.requestAdapter("auto")).resolves.toHaveProperty("adapter");
  });

  test.runIf(process.platform === "linux" && process.arch === "x64")(
    "SwiftShader works beside another adapter in one process and leaves the environment as it was",
    async () => {
      const before = [process.env.VK_ICD_FILENAMES, process.env.VK_DRIVER_FILES];
      const best = await platform.requestAdapter("auto");
      const software = await platform.requestAdapter("swiftshader");
      expect(software.kind).toBe("swiftshader");
      const devices = [await best.adapter.requestDevice(), await software.adapter.requestDevice()];
      for (const device of devices) device.destroy();
      expect([process.env.VK_ICD_FILENAMES, process.env.VK_DRIVER_FILES]).toEqual(before);
    },
  );
});
