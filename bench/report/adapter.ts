/** Part of the report: what the adapter says of itself, and its measured peaks. */
import { existsSync, readFileSync } from "node:fs";
import { Device } from "../../src/engine/gpu/device.ts";
import { platform } from "../../src/engine/platform/index.ts";
import { timingOptions } from "../measure/measure.ts";
import { measurePeaks } from "../measure/peaks.ts";
import type { Finding, PartContext } from "./finding.ts";

/** Where Linux tells a driver's version that Vulkan does not pass on. */
const DRIVER_FILES = ["/proc/driver/nvidia/version", "/sys/module/amdgpu/version", "/sys/module/i915/version"];

export async function adapterPart(_context: PartContext, emit: (finding: Finding) => void): Promise<void> {
  const { adapter, kind, description } = await platform.requestAdapter();
  const { info } = adapter;
  const limits: Record<string, number> = {};
  for (const name in adapter.limits) {
    const value: unknown = Reflect.get(adapter.limits, name);
    if (typeof value === "number") limits[name] = value;
  }
  const device = await Device.open();
  try {
    emit({
      kind: "result",
      name: "adapter",
      figures: {
        name: description,
        kind,
        software: device.isSoftware,
        ...{ vendor: info.vendor, architecture: info.architecture, device: info.device, driver: info.description },
        driver_files: DRIVER_FILES.filter((file) => existsSync(file)).map((file) => readFileSync(file, "utf8").trim()),
        subgroup_sizes: [info.subgroupMinSize, info.subgroupMaxSize],
        subgroup_size_used: device.facts.subgroupSize,
        features: [...adapter.features].map(String).sort(),
        limits,
      },
    });
    const peaks = await measurePeaks(device, timingOptions(true));
    emit({ kind: "result", name: "peaks", figures: JSON.parse(JSON.stringify(peaks)) });
  } finally {
    device.close();
  }
}
