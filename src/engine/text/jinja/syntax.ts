/** The parts of a parsed template. What they mean stands in evaluate.ts (expressions) and render.ts (statements). */
import type { Operator } from "./numbers.ts";

export type Comparison = "==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in";

/** The arguments of a call, a filter or a test. */
export interface CallArguments {
  readonly positional: readonly Expression[];
  readonly keywords: readonly { readonly key: string; readonly value: Expression }[];
  /** *args */
  readonly spread?: Expression;
  /** **kwargs */
  readonly keywordSpread?: Expression;
}

export interface FilterCall {
  readonly name: string;
  readonly args: CallArguments;
}

export type Expression =
  | { readonly kind: "constant"; readonly value: null | boolean | bigint | number | string }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "list" | "tuple"; readonly items: readonly Expression[] }
  | { readonly kind: "dict"; readonly entries: readonly { readonly key: Expression; readonly value: Expression }[] }
  | { readonly kind: "attribute"; readonly object: Expression; readonly name: string }
  | { readonly kind: "item"; readonly object: Expression; readonly key: Expression }
  | { readonly kind: "slice"; readonly object: Expression; readonly bounds: readonly (Expression | undefined)[] }
  | { readonly kind: "call"; readonly callee: Expression; readonly args: CallArguments }
  | { readonly kind: "filter"; readonly operand: Expression; readonly filter: FilterCall }
  | { readonly kind: "test"; readonly operand: Expression; readonly test: FilterCall }
  | { readonly kind: "not"; readonly operand: Expression }
  | { readonly kind: "sign"; readonly operator: "-" | "+"; readonly operand: Expression }
  | { readonly kind: "binary"; readonly operator: Operator; readonly left: Expression; readonly right: Expression }
  | { readonly kind: "and" | "or"; readonly left: Expression; readonly right: Expression }
  | { readonly kind: "concat"; readonly parts: readonly Expression[] }
  | {
      readonly kind: "compare";
      readonly first: Expression;
      readonly rest: readonly { readonly operator: Comparison; readonly operand: Expression }[];
    }
  | {
      readonly kind: "condition";
      readonly test: Expression;
      readonly then: Expression;
      readonly otherwise: Expression | undefined;
    };

export type Target =
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "field"; readonly object: string; readonly name: string }
  | { readonly kind: "targets"; readonly items: readonly Target[] };

export interface MacroParameter {
  readonly name: string;
  readonly default?: Expression;
}

/** Parameters and body of a macro, or of what a call block hands over as `caller`. */
export interface MacroBody {
  readonly name: string;
  readonly parameters: readonly MacroParameter[];
  readonly body: readonly Statement[];
  /** The body asks for `caller`, `varargs`, `kwargs`. */
  readonly uses: { readonly caller: boolean; readonly varargs: boolean; readonly kwargs: boolean };
}

export interface ForLoop {
  readonly kind: "for";
  readonly target: Target;
  readonly iterable: Expression;
  readonly filter: Expression | undefined;
  readonly recursive: boolean;
  readonly body: readonly Statement[];
  readonly otherwise: readonly Statement[];
}

export type Statement =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "output"; readonly value: Expression }
  | ForLoop
  | {
      readonly kind: "if";
      readonly branches: readonly { readonly test: Expression; readonly body: readonly Statement[] }[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly kind: "set"; readonly target: Target; readonly value: Expression }
  | {
      readonly kind: "set block";
      readonly target: Target;
      readonly filters: readonly FilterCall[];
      readonly body: readonly Statement[];
    }
  | {
      readonly kind: "with";
      readonly bindings: readonly { readonly target: Target; readonly value: Expression }[];
      readonly body: readonly Statement[];
    }
  | { readonly kind: "macro"; readonly macro: MacroBody }
  | { readonly kind: "call block"; readonly call: Expression & { kind: "call" }; readonly caller: MacroBody }
  | { readonly kind: "filter block"; readonly filters: readonly FilterCall[]; readonly body: readonly Statement[] }
  | { readonly kind: "generation"; readonly body: readonly Statement[] }
  | { readonly kind: "break" | "continue" };
