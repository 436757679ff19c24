/**
 * Times the matmul's tiles in workgroup memory as they are and double buffered, alternating in one process, so that the
 * machine's other work meets both alike. Both must give the same bits. Double buffered, by rewriting the finished text:
 * the steps to come are filled into a second half of the memory while the first is multiplied, with one barrier a round
 * instead of two; "ahead", for tiles that an invocation fills in one go, also keeps the loads from memory apart from the
 * stores behind the products, as registers allow on a GPU.
 *
 *   npx tsx bench/experiments/double-buffering.ts [--size N] [--rounds N] [--tile NAME]
 *
 * KTO_ADAPTER chooses the adapter. Medians of the ratios of a round.
 */
import { parseArgs } from "node:util";
import { Device } from "../../src/engine/gpu/device.ts";
import { Program } from "../../src/engine/gpu/program.ts";
import { commit } from "../../src/engine/platform/node-commit.ts";
import { Random } from "../../src/engine/random.ts";
import { type MatmulKernel, type MatmulLayout, matmul } from "../../src/kernels/matmul.ts";
import { BASE_FACTS } from "../../src/kernels/wgsl.ts";
import { summary } from "../measure/measure.ts";

/** Least time of one timing, in milliseconds. */
const LEAST_MS = 50;

/** The loop over k of such a tile's text: what comes before it, its steps, how it fills, how it multiplies, and the rest. */
const LOOP =
  /^([\s\S]*?)( {2}for \(var k = 0u; k < u\.K; k \+= (\d+)u\) \{\n)\s+workgroupBarrier\(\);\n([\s\S]*?)\s+workgroupBarrier\(\);\n([\s\S]*?)\n {2}\}\n([\s\S]*)$/;

/** The kernel's text with two halves of workgroup memory, one filled while the other is multiplied. */
function doubleBuffered(wgsl: string, ahead: boolean): string {
  const [, before = "", head = "", steps = "", fill = "", multiply = "", rest = ""] = LOOP.exec(wgsl) ?? [];
  if (head === "") throw new Error("a text without a loop over k that fills workgroup memory");
  const sizes: Record<string, number> = {};
  const declared = before.replace(
    /var<workgroup> (tile\w): array<vec4f, (\d+)>;/g,
    (_, name: string, count: string) => {
      sizes[name] = Number(count);
      return `var<workgroup> ${name}: array<vec4f, ${2 * Number(count)}>;`;
    },
  );
  const into = (text: string, half: string) =>
    text.replace(/(tile\w)\[/g, (_, name: string) => `${name}[${half} * ${sizes[name]}u + `);
  const filled = into(fill, "(1u - current)");
  const start = `  var current = 1u;\n  { let k = 0u;\n${filled}\n  }\n`;
  const body = ahead
    ? apart(filled, steps, into(multiply, "current"))
    : `    { let next = k + ${steps}u; { let k = next;\n${filled}\n    } }\n${into(multiply, "current")}`;
  return `${declared}${start}${head}    workgroupBarrier();\n    current = 1u - current;\n${body}\n  }\n${rest}`;
}

/** The loads of both operands' fills, the products, then the stores. */
function apart(filled: string, steps: string, multiply: string): string {
  const loops = [...filled.matchAll(/for \(var i = 0u; i < 1u; i\+\+\) \{\n([\s\S]*?)\n {4}\}/g)].map(
    ([, body = ""]) => body,
  );
  if (loops.length !== 2) throw new Error("loads and stores are apart where an invocation fills in one go");
  const renamed = loops.map((body, n) =>
    body
      .replace(/\bi \*/g, "0u *")
      .replace(/\b(t\d|block|quad|step)\b/g, (name) => `${name}_${n}`)
      .split("\n"),
  );
  const loads = renamed.map((lines) => lines.filter((line) => !line.trim().startsWith("tile")).join("\n"));
  const stores = renamed.map((lines) => lines.filter((line) => line.trim().startsWith("tile")).join("\n"));
  const next = (text: string) => text.replace(/\bk \+/g, `k + ${steps}u +`);
  return `${loads.map(next).join("\n")}\n${multiply}\n${stores.join("\n")}`;
}

async function prepare(device: Device, kernel: MatmulKernel, size: number) {
  const random = new Random(7);
  const of = (label: string) => device.allocate("scratch", label, [size, size]);
  const [a, b, out] = [of("a"), of("b"), of("out")];
  for (const tensor of [a, b]) {
    device.upload(
      tensor,
      Float32Array.from({ length: size * size }, () => random.normal()),
    );
  }
  const program = new Program(device, "product");
  const unused = {
    bias: device.allocate("scratch", "bias", [4]),
    residual: device.allocate("scratch", "rest", [1, 4]),
  };
  program.dispatch(kernel, {
    ...{ a, b, out, ...unused, M: size, N: size, K: size, aFrom: 0, outFrom: 0, scale: 1 },
    ...{ hasBias: 0, hasResidual: 0, accumulate: 0 },
  });
  await program.prepare();
  program.run();
  const result = new Uint32Array(await device.downloadBytes(out));
  const timed = async (times: number): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < times; i++) program.run();
    await device.idle();
    return (performance.now() - start) / times;
  };
  const free = () => {
    program.dispose();
    for (const tensor of [a, b, out, ...Object.values(unused)]) device.free(tensor);
  };
  return { result, timed, free };
}

const { values } = parseArgs({
  options: {
    size: { type: "string", default: "512" },
    rounds: { type: "string", default: "9" },
    tile: { type: "string", default: "workgroup64x64" },
  },
});
const size = Number(values.size);
const device = await Device.open({ tuning: "off" });
console.log(`${device.description}, ${values.tile}, ${size}^3, ${values.rounds} rounds, commit ${commit()}`);
const layouts: readonly MatmulLayout[] = ["NN", "NT", "TN"];
for (const layout of layouts) {
  const shape = { M: size, N: size, K: size };
  const found = matmul(layout, shape, BASE_FACTS)
    .candidates?.(shape)
    .find(({ variant }) => variant === values.tile);
  if (found === undefined) throw new Error(`${layout} has no tile ${values.tile}`);
  const { candidates: _, ...plain } = found;
  const ways = ["double buffered", ...(layout === "NT" && values.tile === "workgroup64x64" ? ["ahead"] : [])];
  for (const way of ways) {
    const one = await prepare(device, plain, size);
    const other = await prepare(device, { ...plain, wgsl: doubleBuffered(plain.wgsl, way === "ahead") }, size);
    const differing = one.result.filter((word, i) => word !== other.result[i]).length;
    if (differing > 0) throw new Error(`${layout} ${way}: ${differing} results differ`);
    const times = Math.ceil(LEAST_MS / Math.max(0.01, await one.timed(1)));
    const rounds: [number, number][] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      rounds.push([await one.timed(times), await other.timed(times)]);
    }
    const median = (side: 0 | 1) => summary(rounds.map((pair) => pair[side])).medianMs.toFixed(1);
    const ratio = summary(rounds.map(([before, after]) => before / after)).medianMs;
    console.log(`${layout} ${median(0)} -> ${median(1)} ms ${way}, ${ratio.toFixed(3)} times as fast`);
    one.free();
    other.free();
  }
}
device.close();
