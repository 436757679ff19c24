/** The variables of a template: each loop, macro and block with values of its own has a scope within another one. */
import { Undefined, type Value } from "./values.ts";

export class Scope {
  readonly #variables: Map<string, Value>;
  readonly #outer: Scope | undefined;

  constructor(outer?: Scope, variables: Map<string, Value> = new Map()) {
    this.#outer = outer;
    this.#variables = variables;
  }

  get(name: string): Value {
    for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.#outer) {
      const value = scope.#variables.get(name);
      if (value !== undefined) return value;
    }
    return new Undefined(`'${name}' is undefined`);
  }

  /** In this scope: what is set in a loop is gone after it. */
  set(name: string, value: Value): void {
    this.#variables.set(name, value);
  }
}
