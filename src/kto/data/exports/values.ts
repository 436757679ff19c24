/** Reads members of values whose form is not known. Nothing here throws. */
import type { Json } from "./types.ts";

export function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A member of an object's own; undefined if there is none, or if the value is no object. */
export function member(value: unknown, ...path: readonly string[]): unknown {
  let found = value;
  for (const name of path) found = isObject(found) && Object.hasOwn(found, name) ? found[name] : undefined;
  return found;
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** A list that holds something. */
export function holds(value: unknown): boolean {
  return Array.isArray(value) && value.length > 0;
}

export function textOr<T>(value: unknown, otherwise: T): string | T {
  return typeof value === "string" ? value : otherwise;
}

/** A value as an id: text, or a number; otherwise the position, which a reader can count. */
export function idOr(value: unknown, position: string | number): string | number {
  return typeof value === "string" || typeof value === "number" ? value : position;
}

/** The value of a text that is JSON, as cells of a table are; other values as they are. */
export function fromCell(value: unknown): unknown {
  if (typeof value !== "string" || !/^\s*[[{"\d-]/.test(value)) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

/**
 * Milliseconds since 1970 of a time as programs write it: seconds, milliseconds or smaller units as a number, text
 * such as "2026-11-30 09:00:00", or a date of MongoDB's extended JSON. Undefined if it is none.
 */
export function timeOf(value: unknown): number | undefined {
  const date = member(value, "$date");
  if (date !== undefined) return timeOf(isObject(date) ? Number(date.$numberLong) : date);
  if (typeof value === "number") {
    if (!Number.isFinite(value) || value <= 0) return undefined;
    let milliseconds = value < 1e11 ? value * 1000 : value;
    // Newer versions of some programs count in microseconds or nanoseconds.
    while (milliseconds > 1e14) milliseconds /= 1000;
    return milliseconds;
  }
  if (typeof value !== "string" || !/^\d{4}-\d\d-\d\d/.test(value)) return undefined;
  // Without a time zone it is read as UTC, so that a file gives the same days on every machine.
  const iso = value.trim().replace(" ", "T");
  const time = Date.parse(/(Z|[+-]\d\d:?\d\d)$/i.test(iso) || !iso.includes("T") ? iso : `${iso}Z`);
  return Number.isNaN(time) ? undefined : time;
}

/** The day of a time, as "2026-11-30" in UTC. */
export function dayOf(value: unknown): string | undefined {
  const time = timeOf(value);
  return time === undefined ? undefined : new Date(time).toISOString().slice(0, 10);
}
