/**
 * Which modules an adapter has, with what rank and alpha: as PEFT's own functions decide (scripts/peft-selection.py).
 */
import { describe, expect, it } from "vitest";
import { parseModelConfig } from "../../../src/engine/model/config/config.ts";
import type { LoraOptions } from "../../../src/engine/model/lora-modules.ts";
import { checkTargets, linearModules, selectModules } from "../../../src/engine/model/lora-modules.ts";
import { modulePrefix } from "../../../src/engine/model/weights/parameters.ts";
import { readJson } from "../../helpers/fixtures.ts";
import { gpt2Config, llamaConfig } from "../../helpers/models.ts";

interface Selection {
  readonly layers: number;
  readonly modules: Readonly<Record<string, readonly string[]>>;
  readonly cases: readonly {
    readonly family: string;
    readonly config: Readonly<Record<string, unknown>>;
    /** Index of the module, rank, alpha. */
    readonly selected: readonly (readonly [number, number, number])[];
  }[];
}

const { layers, modules, cases } = readJson<Selection>("test/fixtures/peft/selection.json");
const configs = {
  llama: parseModelConfig(JSON.stringify(llamaConfig({ num_hidden_layers: layers })), "llama"),
  gpt2: parseModelConfig(JSON.stringify(gpt2Config({ n_layer: layers })), "gpt2"),
};

function optionsOf(config: Readonly<Record<string, unknown>>): LoraOptions {
  const given = <T>(key: string) => (config[key] ?? undefined) as T | undefined;
  return {
    rank: Number(config.r),
    alpha: Number(config.lora_alpha),
    dropout: 0,
    rslora: false,
    targetModules: given("target_modules"),
    excludeModules: given("exclude_modules"),
    layersToTransform: given("layers_to_transform"),
    layersPattern: given("layers_pattern"),
    rankPattern: given("rank_pattern"),
    alphaPattern: given("alpha_pattern"),
  };
}

describe.each(["llama", "gpt2"] as const)("%s", (family) => {
  const config = configs[family];
  const own = cases.filter((one) => one.family === family);
  const names = modules[family] ?? [];
  const wholeName = (name: string) => `${modulePrefix(config)}${name}`;

  it("has the modules that PEFT was asked about", () => {
    expect(linearModules(config).map(({ name }) => wholeName(name))).toEqual(names);
    expect(own.length).toBeGreaterThan(40);
  });

  it("gets the modules, ranks and alphas that PEFT gives it", () => {
    let empty = 0;
    for (const { config: peft, selected } of own) {
      const wanted = selected.map(([index, rank, alpha]) => ({ name: names[index], rank, alpha }));
      if (wanted.length === 0) {
        empty++;
        expect(() => selectModules(config, optionsOf(peft)), JSON.stringify(peft)).toThrow(/matches no layer/);
        continue;
      }
      const found = selectModules(config, optionsOf(peft));
      expect(
        found.map(({ name, rank, alpha }) => ({ name: wholeName(name), rank, alpha })),
        JSON.stringify(peft),
      ).toEqual(wanted);
    }
    expect(empty).toBeLessThan(own.length / 2);
  });

  it("scales each module by its own rank and alpha", () => {
    const options = { ...optionsOf({ r: 4, lora_alpha: 6 }), rankPattern: { ".*": 9 }, alphaPattern: { ".*": 3 } };
    expect(selectModules(config, options)[0]?.scale).toBe(1 / 3);
    expect(selectModules(config, { ...options, rslora: true })[0]?.scale).toBe(1);
  });
});

describe("a new adapter is refused where it names by pattern or number what is not there", () => {
  const options: LoraOptions = { rank: 2, alpha: 4, dropout: 0, rslora: false };

  it.each<[Partial<LoraOptions>, RegExp]>([
    [{ rankPattern: { q_proj: 3, q_pro: 4 } }, /^lora_rank_pattern has "q_pro", which is no layer of this model/],
    [{ alphaPattern: { "h\\.0\\..*": 3 } }, /^lora_alpha_pattern has "h/],
    [{ excludeModules: ["k_proj", "self_attn.x_proj"] }, /^lora_exclude_modules has "self_attn\.x_proj"/],
    [{ layersToTransform: [0, layers] }, new RegExp(`^lora_layers_to_transform has ${layers}, .* model\\.layers\\.0`)],
  ])("%j", (changes, sentence) => {
    expect(() => checkTargets(configs.llama, { ...options, ...changes })).toThrow(sentence);
  });

  it("and taken where all is there", () => {
    const all = { rankPattern: { q_proj: 3 }, excludeModules: ["k_proj"], layersToTransform: [layers - 1] };
    expect(() => checkTargets(configs.llama, { ...options, ...all })).not.toThrow();
  });
});
