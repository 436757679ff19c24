/**
 * A chat template in the language of Jinja2, rendered as Python's jinja2 renders it with transformers' settings
 * (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls, generation blocks). The judge is Python
 * itself: scripts/make-template-goldens.py. Grammar and rules follow Jinja2 3.1 (Pallets, BSD-3-Clause).
 */

import { Blocks, globalFunctions } from "./globals.ts";
import { toVariables } from "./input.ts";
import { Budget, defaultLimits, type TemplateLimits } from "./limits.ts";
import { parseTemplate } from "./parser.ts";
import { Renderer } from "./render.ts";
import { Scope } from "./scope.ts";

export interface JinjaTemplate {
  /**
   * @param variables of JSON's kinds, by name; they go before functions of the same name
   * @throws TemplateError with what the template, or Python, would say; TemplateLimitError beyond a limit
   */
  render(variables: Readonly<Record<string, unknown>>): string;
}

/**
 * Parses a template.
 *
 * @param source the file that it came from, for messages
 * @throws TemplateError naming the line of what breaks the grammar
 */
export function compileTemplate(text: string, source: string, limits: TemplateLimits = defaultLimits): JinjaTemplate {
  const body = withinStack(() => parseTemplate(text), new Budget(source, limits));
  return {
    render(variables) {
      const budget = new Budget(source, limits);
      return withinStack(() => {
        const globals = new Scope(undefined, new Map(globalFunctions(() => new Date(), budget)));
        // Assignments at the top go before what was given, and do not change it.
        const scope = new Scope(new Scope(globals, toVariables(variables)), new Map([["self", new Blocks()]]));
        return new Renderer(budget).text(body, scope);
      }, budget);
    },
  };
}

function withinStack<T>(run: () => T, budget: Budget): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof RangeError) throw budget.stackEnded(error);
    throw error;
  }
}
