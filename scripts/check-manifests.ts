/**
 * Validates the manifests of examples/cluster by the schemas of the operators that read them, unknown fields included:
 *
 *     npx tsx scripts/check-manifests.ts CRD.yaml ...
 *
 * The schemas are Kubeflow's own definitions of its resources, `manifests/base/kubeflow.org_mpijobs.yaml` of
 * kubeflow/mpi-operator and `manifests/base/crds/*.yaml` of kubeflow/trainer.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import * as z from "zod";

interface Definition {
  readonly kind?: string;
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly { readonly name: string; readonly schema: { readonly openAPIV3Schema: object } }[];
  };
}

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
}

const documents = (path: string): unknown[] =>
  parseAllDocuments(readFileSync(path, "utf8")).map((document) => document.toJS() as unknown);

/** OpenAPI's words that JSON Schema has otherwise, and fields that a definition does not know refused. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const entries = Object.entries(schema).filter(([name]) => !name.startsWith("x-kubernetes") && name !== "format");
  const own: Record<string, unknown> = Object.fromEntries(
    entries.map(([name, value]) =>
      name === "properties"
        ? [name, Object.fromEntries(Object.entries(value as object).map(([key, one]) => [key, strict(one)]))]
        : [name, typeof value === "object" ? strict(value) : value],
    ),
  );
  if ("x-kubernetes-int-or-string" in schema) return { type: ["integer", "string"] };
  const isOpen = "x-kubernetes-preserve-unknown-fields" in schema || "additionalProperties" in schema;
  if (own.properties !== undefined && !isOpen) own.additionalProperties = false;
  return own;
}

const definitions = process.argv.slice(2).flatMap((path) => documents(path) as Definition[]);
const folder = join(import.meta.dirname, "..", "examples", "cluster");
let failures = 0;
for (const name of readdirSync(folder).filter((name) => name.endsWith(".yaml"))) {
  for (const manifest of documents(join(folder, name)) as Manifest[]) {
    const [group, version] = manifest.apiVersion.split("/");
    const found = definitions
      .filter(({ spec }) => spec.group === group && spec.names.kind === manifest.kind)
      .flatMap(({ spec }) => spec.versions)
      .find((one) => one.name === version);
    if (found === undefined) {
      console.log(`${name}: ${manifest.kind} of ${manifest.apiVersion}: no definition was given`);
      failures++;
      continue;
    }
    const schema = strict(found.schema.openAPIV3Schema) as { properties: Record<string, unknown> };
    schema.properties.metadata = { type: "object" }; // every resource's, and not said
    const result = z.fromJSONSchema(schema as Parameters<typeof z.fromJSONSchema>[0]).safeParse(manifest);
    console.log(`${name}: ${manifest.kind} of ${manifest.apiVersion}: ${result.success ? "valid" : "not valid"}`);
    if (!result.success) {
      console.log(z.prettifyError(result.error));
      failures++;
    }
  }
}
if (failures > 0) process.exitCode = 1;
