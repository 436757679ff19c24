/**
 * What `node scripts/second-webgpu.mjs texts` runs in Deno: makes a pipeline of every text in a folder that naga has the
 * extensions for, and prints "N of N texts compile". Texts with subgroups are left out and counted: naga's enable of them
 * is missing.
 */
const [folder] = Deno.args;
const adapter = await navigator.gpu.requestAdapter();
if (adapter === null) {
  console.error("Deno has no WebGPU adapter here.");
  Deno.exit(1);
}
const halves = adapter.features.has("shader-f16");
const device = await adapter.requestDevice({ requiredFeatures: halves ? ["shader-f16"] : [] });
device.addEventListener("uncapturederror", (event) => event.preventDefault());
const files = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".wgsl"));
const leftOut = { subgroups: 0, "shader-f16": 0 };
const errors = [];
let compiled = 0;
for (const file of files.sort()) {
  const code = Deno.readTextFileSync(`${folder}/${file}`);
  const lacking = code.includes("enable subgroups;")
    ? "subgroups"
    : code.includes("enable f16;") && !halves
      ? "shader-f16"
      : undefined;
  if (lacking !== undefined) {
    leftOut[lacking]++;
    continue;
  }
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ code });
  const failure = await device
    .createComputePipelineAsync({ layout: "auto", compute: { module, entryPoint: "main" } })
    .then(
      () => undefined,
      (error) => error.message,
    );
  const message = (await device.popErrorScope())?.message ?? failure;
  if (message === undefined) compiled++;
  else errors.push(`${file}: ${message}`);
}
for (const error of errors.slice(0, 10)) console.error(error);
for (const [feature, count] of Object.entries(leftOut)) {
  if (count > 0) console.log(`${count} texts left out: Deno has no ${feature} here`);
}
console.log(`${compiled} of ${compiled + errors.length} texts compile`);
Deno.exit(errors.length === 0 && compiled > 0 ? 0 : 1);
