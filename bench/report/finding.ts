/**
 * What the parts of a report find, and the report that is made of it. Plain JSON values; how it reads on a page is
 * `page.ts`.
 */
import type { Peaks } from "../measure/peaks.ts";

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

export type Finding =
  | { readonly kind: "result"; readonly name: string; readonly figures: Readonly<Record<string, Json>> }
  | {
      /** Not run on this adapter, and why. */
      readonly kind: "left out";
      readonly name: string;
      readonly reason: string;
      /** How long it would have taken; null where nothing is known that it could be estimated from. */
      readonly estimatedSeconds: number | null;
    }
  | {
      readonly kind: "failed";
      readonly name: string;
      readonly message: string;
      /** Something ran to its end with wrong numbers; otherwise it did not run to its end. */
      readonly wrongNumbers: boolean;
    };

/** What a part of the report is told. */
export interface PartContext {
  /** Seconds that the part may take; what does not fit is left out. */
  readonly seconds: number;
  /** A folder for models and files, the same for all parts. */
  readonly scratch: string;
  /** Small models and few cases only. */
  readonly quick: boolean;
  /** Undefined for the part that measures them. */
  readonly peaks: Peaks | undefined;
}

export interface PartReport {
  readonly name: string;
  readonly title: string;
  readonly seconds: number;
  /** Seconds that it was given. */
  readonly budget_seconds: number;
  readonly findings: readonly Finding[];
}

export interface Report {
  /** The version of this form; a reader of another version does not know it. */
  readonly version: 1;
  readonly date: string;
  readonly quick: boolean;
  /** Whether the adapter is a processor that does a GPU's work; null where none was found. */
  readonly software: boolean | null;
  readonly adapter: string | null;
  readonly machine: Readonly<Record<string, Json>>;
  readonly versions: Readonly<Record<string, string | null>>;
  readonly commit: string | null;
  readonly minutes: number;
  readonly parts: readonly PartReport[];
  /** Kernels that the tuner chose in the course of the report, by kernel and class of shapes. */
  readonly tuning: Readonly<Record<string, string>>;
}

/** The figures of a part's results, by name. */
export function resultsOf(report: Report, part: string): Map<string, Readonly<Record<string, Json>>> {
  const findings = report.parts.find(({ name }) => name === part)?.findings ?? [];
  return new Map(findings.flatMap((found) => (found.kind === "result" ? [[found.name, found.figures]] : [])));
}

/** 0; 5 where there is no adapter; 8 where numbers came out wrong; 1 where a part did not run to its end. */
export function exitCodeOf(report: Report): number {
  if (report.adapter === null) return 5;
  const failures = report.parts.flatMap(({ findings }) => findings).filter((found) => found.kind === "failed");
  if (failures.some(({ wrongNumbers }) => wrongNumbers)) return 8;
  return failures.length > 0 ? 1 : 0;
}
