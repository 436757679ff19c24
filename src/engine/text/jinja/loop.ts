/** The items of a for loop, fetched as the loop needs them, and its variable `loop`. */
import { bind } from "./arguments.ts";
import { equals } from "./compare.ts";
import { typeError } from "./errors.ts";
import type { Budget } from "./limits.ts";
import { type Arguments, Func, ObjectValue, orElse, Tuple, Undefined, type Value } from "./values.ts";

export class LoopVariable extends ObjectValue {
  readonly typeName = "LoopContext";
  readonly shown = "<LoopContext>";
  override readonly call: (args: Arguments) => Value;
  readonly #iterator: Iterator<Value>;
  readonly #depth: number;
  readonly #budget: Budget;
  /** Items fetched before their turn, because a template asked for the next one or for their number. */
  #ahead: Value[] = [];
  /** How many of those had their turn. */
  #taken = 0;
  #before: Value | undefined;
  #current: Value | undefined;
  #index = -1;
  #length: number | undefined;
  #changing: Value | undefined;

  /**
   * @param items of it that the loop's condition lets through
   * @param depth of recursion, from 0
   * @param recurse renders the loop over other items; of a recursive loop
   */
  constructor(items: Iterable<Value>, depth: number, recurse: ((items: Value) => string) | undefined, budget: Budget) {
    super();
    this.#iterator = items[Symbol.iterator]();
    this.#depth = depth;
    this.#budget = budget;
    this.call = (args) => {
      const [inner = null] = bind("loop", args, { parameters: ["iterable"], required: 1 });
      if (recurse) return recurse(inner);
      throw typeError("The loop must have the 'recursive' marker to be called recursively.");
    };
  }

  /** Goes on to the next item; undefined after the last. */
  next(): Value | undefined {
    const item = orElse(this.#ahead[this.#taken], () => this.#fetch());
    if (this.#taken < this.#ahead.length) this.#taken++;
    else if (this.#taken > 0) [this.#ahead, this.#taken] = [[], 0];
    if (item === undefined) return undefined;
    this.#index++;
    this.#before = this.#current;
    this.#current = item;
    return item;
  }

  #fetch(): Value | undefined {
    const { value, done } = this.#iterator.next();
    return done ? undefined : value;
  }

  #peek(): Value | undefined {
    if (this.#ahead.length === this.#taken) {
      const item = this.#fetch();
      if (item !== undefined) this.#ahead.push(item);
    }
    return this.#ahead[this.#taken];
  }

  #count(): number {
    if (this.#length === undefined) {
      for (let item = this.#fetch(); item !== undefined; item = this.#fetch()) this.#ahead.push(item);
      this.#length = this.#index + 1 + this.#ahead.length - this.#taken;
    }
    return this.#length;
  }

  override attribute(name: string): Value | undefined {
    const index = this.#index;
    switch (name) {
      case "index":
        return BigInt(index + 1);
      case "index0":
        return BigInt(index);
      case "revindex":
        return BigInt(this.#count() - index);
      case "revindex0":
        return BigInt(this.#count() - index - 1);
      case "first":
        return index === 0;
      case "last":
        return this.#peek() === undefined;
      case "length":
        return BigInt(this.#count());
      case "depth":
        return BigInt(this.#depth + 1);
      case "depth0":
        return BigInt(this.#depth);
      case "previtem":
        return orElse(this.#before, () => new Undefined("there is no previous item"));
      case "nextitem":
        return orElse(this.#peek(), () => new Undefined("there is no next item"));
      case "cycle":
        return new Func("cycle", ({ positional }) => {
          if (positional.length === 0) throw typeError("no items for cycling given");
          return positional[index % positional.length] ?? null;
        });
      case "changed":
        return new Func("changed", ({ positional }) => {
          const given = new Tuple(positional);
          if (this.#changing !== undefined && equals(this.#changing, given, this.#budget)) return false;
          this.#changing = given;
          return true;
        });
    }
    return undefined;
  }
}
