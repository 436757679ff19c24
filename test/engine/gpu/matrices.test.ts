/**
 * Which subgroup matrices a device has for kernels: chosen among those that its adapter lists, and none that its driver
 * refuses.
 */
import { describe, expect, it } from "vitest";
import { deviceMatrices, MATRIX_FEATURE, type MatrixConfig, rankMatrices } from "../../../src/engine/gpu/matrices.ts";
import { sharedDevice } from "../../helpers/device.ts";

const { gpu, facts } = await sharedDevice();

const config = (componentType: string, resultComponentType: string, M: number, N: number, K: number): MatrixConfig => ({
  componentType,
  resultComponentType,
  M,
  N,
  K,
});

describe("the matrices that are chosen", () => {
  it.each([
    [
      "lavapipe",
      [config("f16", "f16", 8, 8, 8), config("f16", "f32", 8, 8, 8), config("u8", "u32", 8, 8, 8)],
      "f16",
      8,
    ],
    [
      "an RTX",
      [config("f16", "f32", 16, 8, 8), config("f16", "f32", 16, 16, 16), config("f16", "f16", 16, 16, 16)],
      "f16",
      16,
    ],
    ["Apple's", [config("f32", "f32", 8, 8, 8), config("f16", "f16", 8, 8, 8)], "f32", 8],
  ])("on %s", (_, configs, component, N) => {
    expect(rankMatrices(configs)[0]).toMatchObject({ component, N });
  });

  it("none where there are only integers, sums in f16 or sides that no tile has", () => {
    const configs = [
      config("i8", "i32", 16, 16, 32),
      config("f16", "f16", 16, 16, 16),
      config("f16", "f32", 32, 8, 16),
    ];
    expect(rankMatrices(configs)).toEqual([]);
  });
});

describe("a device", () => {
  /** This device as if it had the feature, and other limits. */
  const claiming = (limits: object = {}) =>
    new Proxy(gpu, {
      get(target, name) {
        if (name === "features") return new Set([...target.features, MATRIX_FEATURE, "shader-f16"]);
        if (name === "limits") return { maxComputeWorkgroupStorageSize: 32768, ...limits };
        const value: unknown = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  const info = { subgroupMatrixConfigs: [config("f16", "f32", 16, 16, 16)] } as unknown as GPUAdapterInfo;
  const size = { lanes: 8, pinned: false };

  it("has none that the driver does not compile, and goes on", async () => {
    expect(await deviceMatrices(claiming(), info, size)).toBeUndefined();
  });

  it("has the next ones where the driver refuses the best", async () => {
    const both = { subgroupMatrixConfigs: [config("f16", "f32", 16, 16, 16), config("f16", "f32", 8, 8, 8)] };
    const driver = new Proxy(claiming(), {
      get(target, name) {
        if (name === "createShaderModule") return ({ code }: GPUShaderModuleDescriptor) => ({ code });
        if (name === "popErrorScope") return () => target.popErrorScope().then(() => null);
        if (name !== "createComputePipelineAsync") return Reflect.get(target, name, target);
        return async ({ compute }: GPUComputePipelineDescriptor) => {
          if ((compute.module as unknown as { code: string }).code.includes("f16, 16, 16")) throw new Error("refused");
        };
      },
    });
    const found = await deviceMatrices(driver, both as unknown as GPUAdapterInfo, size);
    expect(found).toEqual({ component: "f16", M: 8, N: 8, K: 8 });
  });

  it("has none where the feature, subgroups or workgroup memory for a tile are missing", async () => {
    const without = new Proxy(gpu, {
      get: (target, name) => (name === "features" ? new Set(["subgroups"]) : Reflect.get(target, name, target)),
    });
    expect(await deviceMatrices(without, info, size)).toBeUndefined();
    expect(await deviceMatrices(claiming(), info, { lanes: 0, pinned: false })).toBeUndefined();
    expect(await deviceMatrices(claiming({ maxComputeWorkgroupStorageSize: 16384 }), info, size)).toBeUndefined();
  });

  it.runIf(facts.matrices !== undefined)("has those that its adapter lists", () => {
    expect(facts.matrices).toMatchObject({ component: expect.stringMatching(/^f(16|32)$/) });
  });
});
