/**
 * What the kernel tests use of vitest, for machines without node_modules: test files register here and `runTests` runs
 * them one after another and reports in the form of vitest's JSON. `expect` is vitest's own package. No mocks,
 * snapshots or watching: a checkout has vitest itself.
 */
import { format, inspect } from "node:util";
import { chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect";

chai.use(JestExtend);
chai.use(JestChaiExpect);
chai.use(JestAsymmetricMatchers);

export const expect = chai.expect;

type Body = (...values: never[]) => unknown;
type Hook = () => unknown;

interface Suite {
  readonly name: string;
  readonly parent: Suite | undefined;
  readonly skipped: boolean;
  readonly children: (Suite | Test)[];
  readonly hooks: Record<"beforeAll" | "afterAll" | "beforeEach" | "afterEach", Hook[]>;
}

interface Test {
  readonly name: string;
  readonly skipped: boolean;
  readonly run: Hook;
}

export interface TestResult {
  readonly fullName: string;
  readonly status: "passed" | "failed" | "pending";
  readonly failureMessages: readonly string[];
}

const top = suiteOf("", undefined, false);
let current = top;

function suiteOf(name: string, parent: Suite | undefined, skipped: boolean): Suite {
  return { name, parent, skipped, children: [], hooks: { beforeAll: [], afterAll: [], beforeEach: [], afterEach: [] } };
}

/** The forms that both `describe` and `it` have; `add` registers one. */
function registrar(add: (name: string, body: Body, values: readonly unknown[], skipped: boolean) => void) {
  const forms = (skipped: boolean) =>
    Object.assign((name: string, body: Body) => add(name, body, [], skipped), {
      each: (table: readonly unknown[]) => (name: string, body: Body) => {
        for (const row of table) {
          const values = Array.isArray(row) ? row : [row];
          add(titleOf(name, values), body, values, skipped);
        }
      },
    });
  return Object.assign(forms(false), {
    skip: forms(true),
    runIf: (condition: unknown) => forms(!condition),
    skipIf: (condition: unknown) => forms(Boolean(condition)),
  });
}

/** `%s` and its like stand for the values in turn, `$name` for a property of the first. */
function titleOf(name: string, values: readonly unknown[]): string {
  const [first] = values;
  const named = name.replace(/\$(\w+)/g, (whole, key: string) =>
    typeof first === "object" && first !== null && key in first ? inspect(Reflect.get(first, key)) : whole,
  );
  const places = named.match(/%[sdifjoO]/g)?.length ?? 0;
  return format(named, ...values.slice(0, places));
}

export const describe = registrar((name, body, values, skipped) => {
  const suite = suiteOf(name, current, skipped || current.skipped);
  current.children.push(suite);
  current = suite;
  try {
    body(...(values as never[]));
  } finally {
    current = suite.parent ?? top;
  }
});

export const it = registrar((name, body, values, skipped) => {
  current.children.push({ name, skipped: skipped || current.skipped, run: () => body(...(values as never[])) });
});
export const test = it;

export const beforeAll = (hook: Hook) => void current.hooks.beforeAll.push(hook);
export const afterAll = (hook: Hook) => void current.hooks.afterAll.push(hook);
export const beforeEach = (hook: Hook) => void current.hooks.beforeEach.push(hook);
export const afterEach = (hook: Hook) => void current.hooks.afterEach.push(hook);

/** Runs everything that was registered, in its order. */
export async function runTests(): Promise<TestResult[]> {
  const results: TestResult[] = [];
  await runSuite(top, [], results);
  return results;
}

/** @param around the suites that the suite stands in, the outermost first */
async function runSuite(suite: Suite, around: readonly Suite[], results: TestResult[]): Promise<void> {
  const suites = [...around, suite];
  const nameOf = (name: string) => [...suites.map((one) => one.name), name].filter((part) => part !== "").join(" ");
  const fail = (fullName: string, error: unknown) =>
    results.push({ fullName, status: "failed", failureMessages: [messageOf(error)] });
  try {
    for (const hook of suite.hooks.beforeAll) await hook();
    for (const child of suite.children) {
      if ("children" in child) await runSuite(child, suites, results);
      else if (child.skipped) results.push({ fullName: nameOf(child.name), status: "pending", failureMessages: [] });
      else {
        try {
          for (const { hooks } of suites) for (const hook of hooks.beforeEach) await hook();
          await child.run();
          for (const { hooks } of [...suites].reverse()) for (const hook of hooks.afterEach) await hook();
          results.push({ fullName: nameOf(child.name), status: "passed", failureMessages: [] });
        } catch (error) {
          fail(nameOf(child.name), error);
        }
      }
    }
    for (const hook of suite.hooks.afterAll) await hook();
  } catch (error) {
    fail(nameOf("(before or after all)"), error);
  }
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // What a property's counterexample fails by stands in its cause.
  return `${error.name}: ${error.message}${error.cause === undefined ? "" : `\nCaused by: ${messageOf(error.cause)}`}`;
}
