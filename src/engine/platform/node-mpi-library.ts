/**
 * The C functions of the machine's own MPI, called through koffi, an optional dependency. Open MPI's handles are the
 * addresses of objects in its library; MPICH and its kin have numbers. Everything that differs between the two stands
 * here. What is done with them is `node-mpi-collectives.ts`'s and `node-mpi-mail.ts`'s.
 */
import { spawnSync } from "node:child_process";
import type koffiModule from "koffi";
import { errorMessage, ResourceError } from "../../errors.ts";
import type { Launch } from "./node-launch.ts";
import { installedVersion } from "./node-versions.ts";

/** A function of the library. Addresses are BigInts; a typed array is passed by its address. */
type Values = readonly (number | bigint | NodeJS.TypedArray)[];
type Call = (...values: Values) => number;

/** A communicator, data type or error handler of either implementation. */
type Handle = number | bigint;

/** What differs between implementations of MPI. */
interface Abi {
  readonly name: "Open MPI" | "MPICH";
  /** How C passes a handle. */
  readonly handle: "uintptr_t" | "int";
  readonly world: Handle;
  readonly byte: Handle;
  readonly errorsReturn: Handle;
  readonly anySource: number;
  readonly ignoredStatus: bigint;
  /** Places of the source and the tag among the status's words of 32 bits. */
  readonly status: { readonly source: number; readonly tag: number };
}

const ANY_TAG = -1;
/** A status has at most 24 bytes in either implementation. */
const STATUS_WORDS = 16;
const LONGEST_TEXT = 8192;

/** Names of the library, in the order in which they are tried. */
const FILES = {
  "Open MPI": ["libmpi.so.40", "libmpi.so", "libmpi.40.dylib", "libmpi.dylib", "/opt/homebrew/lib/libmpi.dylib"],
  MPICH: ["libmpich.so.12", "libmpi.so.12", "libmpich.so", "libmpi.so", "libmpi.12.dylib"],
} as const;

/** The system's C library. */
export const LIBC = process.platform === "darwin" ? "libSystem.dylib" : "libc.so.6";

export interface MpiMessage {
  readonly from: number;
  readonly tag: number;
}

/** How the library could be loaded, or why not. */
export async function loadMpi(launcher?: Launch["launcher"]): Promise<MpiLibrary> {
  const koffi = await loadKoffi();
  const asked = process.env.KTO_MPI_LIBRARY;
  const names =
    asked !== undefined && asked !== ""
      ? [asked]
      : launcher === "MPICH"
        ? [...FILES.MPICH, ...FILES["Open MPI"]]
        : [...FILES["Open MPI"], ...FILES.MPICH];
  let reason = "";
  for (const name of new Set(names)) {
    try {
      // Plugins of Open MPI look for its symbols among those of the whole process.
      return new MpiLibrary(koffi, koffi.load(name, { global: true }), name);
    } catch (error) {
      if (error instanceof ResourceError) throw error;
      reason ||= errorMessage(error).split("\n", 1)[0] ?? "";
    }
  }
  throw new ResourceError(
    `No MPI library can be loaded (${reason}): install Open MPI (Debian and Ubuntu: apt install openmpi-bin), load the cluster's module, or name the file in KTO_MPI_LIBRARY.`,
  );
}

/** What this machine has of what several ranks need. */
export interface MpiFacts {
  /** The version of koffi that is installed; null for none. */
  readonly koffi: string | null;
  /** The library of MPI, such as "Open MPI v4.1.4 (libmpi.so.40)"; null where none can be loaded. */
  readonly library: string | null;
  /** The first line of `mpirun --version`; null where there is no mpirun. */
  readonly mpirun: string | null;
  /** Why `mpirun kto train` cannot run here, with the remedy; null where it can. */
  readonly missing: string | null;
}

/** Looks without starting MPI. */
export async function mpiFacts(): Promise<MpiFacts> {
  const { stdout } = spawnSync("mpirun", ["--version"], { encoding: "utf8" });
  const facts = { koffi: installedVersion("koffi"), mpirun: (stdout ?? "").split("\n", 1)[0] || null };
  try {
    const mpi = await loadMpi();
    const missing =
      facts.mpirun === null ? "There is no mpirun in the PATH; it comes with the library's package." : null;
    return { ...facts, library: `${mpi.version()} (${mpi.file})`, missing };
  } catch (error) {
    return { ...facts, library: null, missing: errorMessage(error) };
  }
}

type Koffi = typeof koffiModule;

/** At need: an optional dependency, and native. */
export async function loadKoffi(): Promise<Koffi> {
  try {
    return (await import("koffi")).default;
  } catch (error) {
    throw new ResourceError(
      `Several ranks need the package koffi, which cannot be loaded (${(errorMessage(error).split("\n", 1)[0] ?? "").replace(/\.$/, "")}): npm install koffi.`,
      { cause: error },
    );
  }
}

/** One library of MPI. All calls must come from one thread. */
export class MpiLibrary {
  /** What was loaded, such as "libmpi.so.40". */
  readonly file: string;
  readonly #abi: Abi;
  readonly #declare: (name: string, ...parameters: string[]) => Call;
  readonly #addressOf: (bytes: NodeJS.TypedArray) => bigint;
  readonly #functions = new Map<string, Call>();
  readonly #flag = new Int32Array(1);
  readonly #status = new Int32Array(STATUS_WORDS);

  constructor(koffi: Koffi, library: ReturnType<Koffi["load"]>, file: string) {
    this.file = file;
    const address = (symbol: string): bigint => library.symbol(symbol);
    this.#abi = abiOf(address, file);
    this.#declare = (name, ...parameters) => library.func(name, "int", parameters) as Call;
    this.#addressOf = (bytes) => koffi.address(bytes);
  }

  get name(): Abi["name"] {
    return this.#abi.name;
  }

  /** Where the bytes lie: they do not move as long as something holds their buffer. */
  addressOf(bytes: NodeJS.TypedArray): bigint {
    return bytes.byteLength === 0 ? 0n : this.#addressOf(bytes);
  }

  /** The library's own description of itself, on one line. May be called before `start`. */
  version(): string {
    const text = new Uint8Array(LONGEST_TEXT);
    const length = new Int32Array(1);
    this.#call("MPI_Get_library_version", ["void *", "void *"], [text, length]);
    const said = new TextDecoder().decode(text.subarray(0, Math.max(0, length[0] ?? 0))).replaceAll("\0", "");
    return said.split(/[\n,]/, 1)[0]?.replace(/\s+/g, " ").trim() || this.name;
  }

  /** MPI_Init_thread: this thread alone will call MPI. */
  start(): void {
    const granted = new Int32Array(1);
    const funneled = 1;
    this.#call("MPI_Init_thread", ["void *", "void *", "int", "void *"], [0n, 0n, funneled, granted]);
    this.#call(
      "MPI_Comm_set_errhandler",
      [this.#abi.handle, this.#abi.handle],
      [this.#abi.world, this.#abi.errorsReturn],
    );
  }

  /** MPI_Finalize, which waits for the other ranks. */
  finish(): void {
    this.#call("MPI_Finalize", [], []);
  }

  /** MPI_Abort: ends all ranks and this process. */
  abort(exitCode: number): void {
    this.#call("MPI_Abort", [this.#abi.handle, "int"], [this.#abi.world, exitCode]);
  }

  /** A communicator of its own over all ranks. */
  communicator(): MpiCommunicator {
    const made = new BigInt64Array(1);
    this.#call("MPI_Comm_dup", [this.#abi.handle, "void *"], [this.#abi.world, made]);
    const handle =
      this.#abi.handle === "int" ? (new Int32Array(made.buffer)[0] ?? 0) : BigInt.asUintN(64, made[0] ?? 0n);
    this.#call("MPI_Comm_set_errhandler", [this.#abi.handle, this.#abi.handle], [handle, this.#abi.errorsReturn]);
    return new MpiCommunicator(this, this.#abi, handle);
  }

  /** MPI_Test: whether the operation is done; it is then over. */
  isDone(request: MpiRequest): boolean {
    this.#call("MPI_Test", ["void *", "void *", "void *"], [request, this.#flag, this.#abi.ignoredStatus]);
    return this.#flag[0] !== 0;
  }

  /** @throws ResourceError with the library's own words */
  invoke(name: string, parameters: readonly string[], values: Values): void {
    this.#call(name, parameters, values);
  }

  /** Source and tag of the next message, where one has come. */
  probed(name: string, parameters: readonly string[], values: Values): MpiMessage | undefined {
    this.#call(name, [...parameters, "void *", "void *"], [...values, this.#flag, this.#status]);
    if (this.#flag[0] === 0) return undefined;
    const { source, tag } = this.#abi.status;
    return { from: this.#status[source] ?? 0, tag: this.#status[tag] ?? 0 };
  }

  #call(name: string, parameters: readonly string[], values: Values): void {
    let call = this.#functions.get(name);
    if (call === undefined) {
      call = this.#declare(name, ...parameters);
      this.#functions.set(name, call);
    }
    const code = call(...values);
    if (code !== 0) throw new ResourceError(`${name} of ${this.file} failed: ${this.#errorText(code)}.`);
  }

  #errorText(code: number): string {
    const text = new Uint8Array(LONGEST_TEXT);
    const length = new Int32Array(1);
    const call = this.#declare("MPI_Error_string", "int", "void *", "void *");
    if (call(code, text, length) !== 0) return `error ${code}`;
    return new TextDecoder().decode(text.subarray(0, Math.max(0, length[0] ?? 0)));
  }
}

/** An operation in progress: where MPI keeps its handle. */
export type MpiRequest = BigInt64Array<ArrayBuffer>;

/** Bytes at an address. */
export interface AddressedBytes {
  readonly address: bigint;
  readonly bytes: number;
}

/** One communicator. Its calls begin an operation; `MpiLibrary.isDone` says when it is over. */
export class MpiCommunicator {
  readonly #mpi: MpiLibrary;
  readonly #abi: Abi;
  readonly #handle: Handle;

  constructor(mpi: MpiLibrary, abi: Abi, handle: Handle) {
    this.#mpi = mpi;
    this.#abi = abi;
    this.#handle = handle;
  }

  get size(): number {
    const size = new Int32Array(1);
    this.#mpi.invoke("MPI_Comm_size", [this.#abi.handle, "void *"], [this.#handle, size]);
    return size[0] ?? 0;
  }

  get rank(): number {
    const rank = new Int32Array(1);
    this.#mpi.invoke("MPI_Comm_rank", [this.#abi.handle, "void *"], [this.#handle, rank]);
    return rank[0] ?? 0;
  }

  /** @param each bytes of one rank */
  allGather(own: AddressedBytes, all: AddressedBytes, each: number): MpiRequest {
    return this.#exchange("MPI_Iallgather", own, all, each);
  }

  /** @param each bytes that one rank sends to one other */
  allToAll(own: AddressedBytes, received: AddressedBytes, each: number): MpiRequest {
    return this.#exchange("MPI_Ialltoall", own, received, each);
  }

  broadcast({ address, bytes }: AddressedBytes, root: number): MpiRequest {
    const { handle, byte } = this.#abi;
    return this.#begin(
      "MPI_Ibcast",
      ["uintptr_t", "int", handle, "int", handle],
      [address, bytes, byte, root, this.#handle],
    );
  }

  barrier(): MpiRequest {
    return this.#begin("MPI_Ibarrier", [this.#abi.handle], [this.#handle]);
  }

  /** The bytes must not change until it is done. */
  send({ address, bytes }: AddressedBytes, to: number, tag: number): MpiRequest {
    const { handle, byte } = this.#abi;
    return this.#begin(
      "MPI_Isend",
      ["uintptr_t", "int", handle, "int", "int", handle],
      [address, bytes, byte, to, tag, this.#handle],
    );
  }

  /** The next message that has come, which is not taken. */
  probe(): MpiMessage | undefined {
    const { anySource, handle } = this.#abi;
    return this.#mpi.probed("MPI_Iprobe", ["int", "int", handle], [anySource, ANY_TAG, this.#handle]);
  }

  /** Takes a message that has come. */
  receive({ address, bytes }: AddressedBytes, { from, tag }: MpiMessage): void {
    const { handle, byte, ignoredStatus } = this.#abi;
    this.#mpi.invoke(
      "MPI_Recv",
      ["uintptr_t", "int", handle, "int", "int", handle, "void *"],
      [address, bytes, byte, from, tag, this.#handle, ignoredStatus],
    );
  }

  #exchange(name: string, own: AddressedBytes, all: AddressedBytes, each: number): MpiRequest {
    const { handle, byte } = this.#abi;
    return this.#begin(
      name,
      ["uintptr_t", "int", handle, "uintptr_t", "int", handle, handle],
      [own.address, each, byte, all.address, each, byte, this.#handle],
    );
  }

  #begin(name: string, parameters: readonly string[], values: Values): MpiRequest {
    const request: MpiRequest = new BigInt64Array(1);
    this.#mpi.invoke(name, [...parameters, "void *"], [...values, request]);
    return request;
  }
}

/** By the symbols that only Open MPI's library has. */
function abiOf(address: (symbol: string) => bigint, file: string): Abi {
  const found = (symbol: string): bigint | undefined => {
    try {
      return address(symbol);
    } catch {
      return undefined;
    }
  };
  const world = found("ompi_mpi_comm_world");
  if (world !== undefined) {
    return {
      name: "Open MPI",
      handle: "uintptr_t",
      world,
      byte: address("ompi_mpi_byte"),
      errorsReturn: address("ompi_mpi_errors_return"),
      anySource: -1,
      ignoredStatus: 0n,
      status: { source: 0, tag: 1 },
    };
  }
  // The common ABI of MPICH, Intel MPI, MVAPICH and Cray MPI (https://www.mpich.org/abi/): mpi.h's numbers.
  if (found("MPIR_Err_create_code") !== undefined || found("PMPI_Init") !== undefined) {
    return {
      name: "MPICH",
      handle: "int",
      world: 0x44000000,
      byte: 0x4c00010d,
      errorsReturn: 0x54000001,
      anySource: -2,
      ignoredStatus: 1n,
      status: { source: 2, tag: 3 },
    };
  }
  throw new ResourceError(`${file} is no library of Open MPI or MPICH; name another one in KTO_MPI_LIBRARY.`);
}
