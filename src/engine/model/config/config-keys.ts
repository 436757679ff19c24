/**
 * Typed access to the keys of a Hugging Face JSON file, with errors that name file and key. What the keys mean for a
 * model is said in `config.ts`.
 */
import { ModelFormatError, shown } from "../../../errors.ts";

export type ConfigJson = Record<string, unknown>;

/** Two names or more, quoted, for messages. */
export function listed(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`);
  return `${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}`;
}

/** A key that is null counts as absent everywhere, as it does in Hugging Face's files. */
export class Keys {
  readonly json: ConfigJson;
  readonly file: string;
  /** The key that holds this object; "" for the file's own. */
  readonly inside: string;

  constructor(json: ConfigJson, file: string, inside = "") {
    this.json = json;
    this.file = file;
    this.inside = inside;
  }

  error(what: string): ModelFormatError {
    return new ModelFormatError(`${this.file}: ${what}.`);
  }

  has(key: string): boolean {
    return (this.json[key] ?? null) !== null;
  }

  /** A whole number of at least 1. */
  count(key: string, fallback?: number): number {
    const value = this.json[key] ?? fallback;
    if (value === undefined) throw this.error(`key ${this.#named(key)} is missing`);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
      throw this.error(`${this.#named(key)} is ${shown(value)}, not a whole number of at least 1`);
    }
    return value;
  }

  /** Whether one of these shares is above 0. */
  any(keys: readonly string[], fallback: number): boolean {
    return keys.some((key) => {
      const value = this.json[key] ?? fallback;
      if (typeof value === "number" && value >= 0 && value <= 1) return value > 0;
      throw this.error(`${this.#named(key)} is ${shown(value)}, not a number from 0 to 1`);
    });
  }

  /** Width of one head where the heads share the hidden size out. */
  headSize(hiddenKey: string, headsKey: string): number {
    const [hiddenSize, heads] = [this.count(hiddenKey), this.count(headsKey)];
    if (hiddenSize % heads !== 0) {
      throw this.error(`${hiddenKey} ${hiddenSize} is not a multiple of ${headsKey} ${heads}`);
    }
    return hiddenSize / heads;
  }

  positive(key: string, fallback?: number): number {
    const value = this.json[key] ?? fallback;
    if (value === undefined) throw this.error(`key ${this.#named(key)} is missing`);
    if (typeof value !== "number" || !(Math.fround(value) > 0) || !Number.isFinite(Math.fround(value))) {
      throw this.error(
        `${this.#named(key)} is ${shown(value)}, not a number above 0 that 32-bit floating point can hold`,
      );
    }
    return value;
  }

  /** A list of this many numbers above 0 that f32 can hold. */
  numbers(key: string, count: number): readonly number[] {
    const value = this.json[key];
    const isNumber = (one: unknown) => {
      return typeof one === "number" && Math.fround(one) > 0 && Number.isFinite(Math.fround(one));
    };
    if (Array.isArray(value) && value.length === count && value.every(isNumber)) return value as number[];
    throw this.error(
      value === undefined
        ? `key ${this.#named(key)} is missing`
        : `${this.#named(key)} is ${shown(value)}, not a list of ${count} numbers above 0`,
    );
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.json[key] ?? fallback;
    if (typeof value !== "boolean") throw this.error(`${this.#named(key)} is ${shown(value)}, not true or false`);
    return value;
  }

  /** An object inside this one; undefined where it is absent. */
  object(key: string): Keys | undefined {
    const value = this.json[key] ?? null;
    if (value === null) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) {
      throw this.error(`"${key}" is ${shown(value)}, not an object`);
    }
    return new Keys(value as ConfigJson, this.file, key);
  }

  /** A list with an entry for each layer (more are not read), all of `allowed`; undefined where it is absent. */
  perLayer<T extends string | number>(key: string, layers: number, allowed: readonly T[]): readonly T[] | undefined {
    const value = this.json[key] ?? null;
    if (value === null) return undefined;
    if (!Array.isArray(value) || value.length < layers) {
      throw this.error(`"${key}" is ${shown(value)}, not a list with an entry for each of the ${layers} layers`);
    }
    return value.slice(0, layers).map((entry: unknown) => {
      const found = allowed.find((one) => one === entry);
      if (found !== undefined) return found;
      const choices = allowed.map((one) => shown(one)).join(" and ");
      throw this.error(`"${key}" holds ${shown(entry)}; only ${choices} are supported`);
    });
  }

  /** Throws unless the key is absent or holds the one value that is implemented. */
  refuse(key: string, supported: unknown): void {
    const value = this.json[key];
    if (value !== undefined && value !== null && value !== supported) {
      throw this.error(`${this.#named(key)} is ${shown(value)}; only ${shown(supported)} is supported`);
    }
  }

  /** Throws if the key has a value that switches something on: anything but null, false, 0 and an empty list. */
  refuseUse(key: string): void {
    const value = this.json[key] ?? null;
    if (value === null || value === false || value === 0 || (Array.isArray(value) && value.length === 0)) return;
    throw this.error(`${this.#named(key)} is ${shown(value)}, which is not supported`);
  }

  specialTokens(): { bosTokenId: number | undefined; eosTokenIds: number[] } {
    const bos = this.json.bos_token_id;
    return {
      bosTokenId: typeof bos === "number" ? bos : undefined,
      eosTokenIds: [...(this.endTokens() ?? [])],
    };
  }

  /** `eos_token_id`: one token id or a list of them; undefined where it is absent or names none. */
  endTokens(): readonly number[] | undefined {
    const value = this.json.eos_token_id;
    if (value === undefined || value === null) return undefined;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (ids.length === 0) return undefined;
    if (ids.every((id): id is number => Number.isSafeInteger(id) && (id as number) >= 0)) return ids;
    throw this.error(
      `"eos_token_id" is ${shown(value)}, not a token id or a list of token ids (whole numbers of at least 0)`,
    );
  }

  #named(key: string): string {
    return this.inside === "" ? `"${key}"` : `"${key}" of "${this.inside}"`;
  }
}
