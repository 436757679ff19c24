/**
 * A pipe in place of a socket as descriptor 2, from which a `cat` of its own copies into the socket. Unlike a socket, a
 * pipe can be opened again, which `node-native-stderr.ts` needs. Linux only.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Starts the relay.
 *
 * @returns a descriptor to write to; undefined where none can be made, for want of `mkfifo` or `cat`
 */
export function relayStderr(): number | undefined {
  let folder: string | undefined;
  const opened: number[] = [];
  const open = (path: string, flags: number) => {
    const descriptor = openSync(path, flags);
    opened.push(descriptor);
    return descriptor;
  };
  try {
    folder = mkdtempSync(join(tmpdir(), "kto-stderr-"));
    const path = join(folder, "pipe");
    if (spawnSync("mkfifo", [path], { stdio: "ignore" }).status !== 0) return undefined;
    // Each end waits until the other one is open, but for a reader that asks not to.
    open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = open(path, constants.O_WRONLY);
    const reader = open(path, constants.O_RDONLY);
    // In a session of its own, so that Ctrl-C does not end it before our last words. It ends when nobody writes.
    const relay = spawn("cat", [], { stdio: [reader, 2, "ignore"], detached: true });
    relay.on("error", () => {});
    if (relay.pid === undefined) return undefined;
    relay.unref();
    opened.splice(opened.indexOf(writer), 1);
    return writer;
  } finally {
    for (const descriptor of opened) closeSync(descriptor);
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  }
}
