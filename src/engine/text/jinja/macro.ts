/** Macros, and what a call block hands to one as `caller`: functions whose value is the text that their body writes. */
import { typeError } from "./errors.ts";
import { evaluate } from "./evaluate.ts";
import type { Budget } from "./limits.ts";
import { Scope } from "./scope.ts";
import type { MacroBody, Statement } from "./syntax.ts";
import { type Arguments, Dict, ObjectValue, orElse, Tuple, Undefined, type Value } from "./values.ts";

export class Macro extends ObjectValue {
  readonly typeName = "Macro";
  readonly shown: string;
  override readonly call: (args: Arguments) => Value;
  readonly #macro: MacroBody;

  /**
   * @param scope where it is defined: it sees the names there, also those that are set later
   * @param render writes the body in a scope
   */
  constructor(
    macro: MacroBody,
    scope: Scope,
    render: (body: readonly Statement[], scope: Scope) => string,
    budget: Budget,
  ) {
    super();
    this.#macro = macro;
    this.shown = `<Macro '${macro.name}'>`;
    this.call = (args) =>
      budget.nested(() => {
        const inner = new Scope(scope);
        bindParameters(macro, args, inner, budget);
        return render(macro.body, inner);
      });
  }

  override attribute(name: string): Value | undefined {
    const { parameters, uses } = this.#macro;
    switch (name) {
      case "name":
        return this.#macro.name;
      case "arguments":
        return new Tuple(parameters.map((parameter) => parameter.name));
      case "catch_kwargs":
        return uses.kwargs;
      case "catch_varargs":
        return uses.varargs;
      case "caller":
        return uses.caller;
    }
    return undefined;
  }
}

function bindParameters(macro: MacroBody, args: Arguments, scope: Scope, budget: Budget): void {
  const { name, parameters, uses } = macro;
  const { positional } = args;
  const left = new Map(args.keywords);
  const values = parameters.map((parameter, i) => {
    if (i < positional.length) return positional[i];
    const value = left.get(parameter.name);
    left.delete(parameter.name);
    return value;
  });
  if (uses.caller) {
    scope.set(
      "caller",
      orElse(left.get("caller"), () => new Undefined("No caller defined")),
    );
    left.delete("caller");
  }
  if (uses.kwargs) scope.set("kwargs", new Dict(left));
  else {
    const [extra] = left.keys();
    if (extra === "caller")
      throw typeError(`macro '${name}' was invoked with two values for the special caller argument`);
    if (extra !== undefined) throw typeError(`macro '${name}' takes no keyword argument '${extra}'`);
  }
  if (uses.varargs) scope.set("varargs", new Tuple(positional.slice(parameters.length)));
  else if (positional.length > parameters.length) {
    throw typeError(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
  }
  for (const [i, parameter] of parameters.entries()) {
    const given = values[i];
    if (given !== undefined) scope.set(parameter.name, given);
    else if (parameter.default !== undefined) scope.set(parameter.name, evaluate(parameter.default, scope, budget));
    else scope.set(parameter.name, new Undefined(`parameter '${parameter.name}' was not provided`));
  }
}
