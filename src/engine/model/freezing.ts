/**
 * Frozen parameters: which of a model's parameters are trained, as a layout of their own. What is not in it has neither
 * gradients nor moments.
 */
import { ConfigError, shown } from "../../errors.ts";
import { textsMatching } from "../files/foreign-pattern.ts";
import { ParameterLayout } from "../gpu/arena.ts";
import type { Model } from "./model.ts";

/**
 * The layout of the parameters that no pattern matches; undefined without patterns. A pattern is a regular expression
 * that is found anywhere in a tensor's Hugging Face name ("model.layers.0.mlp.up_proj.weight").
 *
 * @throws ConfigError for a pattern that is no regular expression or matches nothing, for one that freezes only a part
 * of what is stored as one matrix, if nothing is left to train, and for a model with an adapter
 */
export function trainedLayout(model: Model, patterns: readonly string[]): ParameterLayout | undefined {
  if (patterns.length === 0) return undefined;
  if (model.adapter) {
    throw new ConfigError(
      "freeze_parameters is for training whole models, and here an adapter is trained over frozen weights: leave it out; lora_target_modules says where the adapter goes.",
    );
  }
  const { specs } = model.layout;
  const names = specs.flatMap(({ parts }) => parts.map(({ name }) => model.storedName(name)));
  const matching = new Set<string>();
  for (const pattern of patterns) {
    const found = textsMatching(pattern, names, `freeze_parameters ${shown(pattern)}`);
    for (const name of found) matching.add(name);
    if (found.length > 0) continue;
    throw new ConfigError(
      `freeze_parameters ${JSON.stringify(pattern)} matches no parameter; this model's are ${names.slice(0, 3).join(", ")}, ….`,
    );
  }
  const trained = specs.filter(({ parts }) => {
    const own = parts.map(({ name }) => model.storedName(name));
    const frozen = own.filter((name) => matching.has(name));
    if (frozen.length > 0 && frozen.length < own.length) {
      const others = own.filter((name) => !frozen.includes(name));
      throw new ConfigError(
        `freeze_parameters freezes ${frozen.join(", ")}, but not ${others.join(", ")}, with which it is stored as one matrix: freeze all of them or none.`,
      );
    }
    return frozen.length === 0;
  });
  if (trained.length === 0) throw new ConfigError("freeze_parameters freezes every parameter; leave some to train.");
  return new ParameterLayout(trained, { maxBufferBytes: model.device.bufferLimit });
}
