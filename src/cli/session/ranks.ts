/**
 * A command as several ranks under mpirun: which adapter each takes, and that all of them do the same with the same
 * files. Every sentence names the rank that differs. Where a process runs alone, nothing here does anything.
 */

import { createHash } from "node:crypto";
import { createReadStream, statSync } from "node:fs";
import { pipeline } from "node:stream/promises";
import type { Device } from "../../engine/gpu/device.ts";
import { platform } from "../../engine/platform/index.ts";
import { ALONE, type Communicator } from "../../engine/ranks/communicator.ts";
import { firstDifference } from "../../engine/ranks/same.ts";
import { gatherJson } from "../../engine/ranks/sums.ts";
import { counted, RankError, shown } from "../../errors.ts";
import { SECRET_OPTIONS } from "../../kto/options/hub.ts";
import type { RunConfig } from "../../kto/options/run.ts";
import { useOf } from "../../kto/run/checkpoints.ts";
import type { Run } from "../../kto/run/run.ts";
import type { Output } from "../terminal/output.ts";
import { type RankProcess, rankProcess } from "../terminal/rank-process.ts";

/** Options in which ranks may differ: what concerns one machine or one terminal. */
const OWN_OPTIONS: readonly string[] = [
  ...["adapter", "log_level", "quiet", "json", "debug", "log_ranks", "output_dir", "logging_dir", "dataset_num_proc"],
  ...SECRET_OPTIONS,
];

/** Options that name files: whether they are given is compared, and the files' contents in place of their names. */
const FILE_OPTIONS: readonly string[] = [
  ...["model_name_or_path", "ref_model_name_or_path", "adapter_name_or_path", "chat_template_path"],
  ...["dataset_name", "eval_dataset_name", "resume_from_checkpoint"],
];

/** Files of a model folder that say what the model computes and which tokens it reads. */
const MODEL_FILES = /\.(safetensors|json|jinja|model|txt)$/;

/** Ranks with what messages call them. */
export type NamedRanks = Communicator & Pick<RankProcess["link"], "nameOf" | "members">;

/** The options of a command whose work several ranks share. */
type RankedConfig = Pick<RunConfig, "rank_timeout"> & Readonly<Record<string, unknown>>;

/**
 * The ranks that share this run; compares their versions and options.
 *
 * @throws RankError that names the first rank and option that differ
 */
export async function openRanks(config: RankedConfig, output: Output): Promise<Communicator> {
  const ranks = rankProcess();
  if (ranks === undefined) return ALONE;
  const { link } = ranks;
  link.timeoutMs = 1000 * config.rank_timeout;
  checkVersions(ranks);
  await checkOptions(link, config);
  const machines = new Set(link.members.map(({ machine }) => machine)).size;
  output.info(`ranks: ${link.size} on ${counted(machines, "machine")}, ${link.library}`);
  return link;
}

/**
 * Compares what must be the same of all ranks' options. A file that one rank alone has would be loaded, and its digests
 * compared, by that rank alone, so that the ranks would no longer call each other in turn.
 *
 * @throws RankError that names the first rank and option that differ
 */
export async function checkOptions(link: NamedRanks, config: Readonly<Record<string, unknown>>): Promise<void> {
  const fact = (name: string, value: unknown) => {
    if (!FILE_OPTIONS.includes(name)) return value;
    return value === undefined || value === false ? undefined : "given";
  };
  const own = Object.entries(config).filter(([name]) => !OWN_OPTIONS.includes(name));
  const facts = Object.fromEntries(own.map(([name, value]) => [name, fact(name, value)]));
  const difference = firstDifference(await gatherJson(link, facts));
  if (difference === undefined) return;
  const { rank, name, theirs, first } = difference;
  const text = (of: unknown) => {
    if (of === undefined) return "none";
    return FILE_OPTIONS.includes(name) ? "one" : shown(of);
  };
  throw new RankError(
    `${link.nameOf(rank)} has ${name} ${text(theirs)}, and rank 0 has ${text(first)}: start all ranks with the same options.`,
  );
}

/** After a fault, tells where the run can go on. */
export function adviseRanks(run: Pick<Run, "lastCheckpoint">): void {
  rankProcess()?.adviseBy(() => {
    const { lastCheckpoint: saved } = run;
    return saved && `${saved.path} ${useOf(saved)}.`;
  });
}

function checkVersions({ link }: RankProcess): void {
  const [first] = link.members;
  const other = link.members.find(({ version }) => version !== first?.version);
  if (first === undefined || other === undefined) return;
  throw new RankError(
    `${link.nameOf(other.rank)} runs kto-webgpu ${other.version}, and rank 0 ${first.version}: install the same version on all machines.`,
  );
}

/**
 * The selector of the adapter that this process opens: the one that the user named, or else, of several GPUs, the one
 * with the number of this rank among those of its machine.
 */
export async function adapterOfRank(named: string | undefined): Promise<string | undefined> {
  const ranks = rankProcess();
  if (named !== undefined || ranks === undefined || process.env.KTO_ADAPTER !== undefined) return named;
  const neighbours = onThisMachine(ranks);
  if (neighbours.length < 2 || (await platform.requestAdapter()).kind !== "hardware") return undefined;
  const found = await platform.listAdapters(); // GPUs come first
  const gpus = found.filter(({ kind }) => kind === "hardware").length;
  return String(neighbours.indexOf(ranks.link.rank) % gpus);
}

/** Tells which rank has which adapter, and warns of ranks that share a GPU. Every rank must call it. */
export async function tellAdapters({ kind, description }: Device, output: Output): Promise<void> {
  const ranks = rankProcess();
  if (ranks === undefined) return;
  const { link } = ranks;
  const all = await gatherJson(link, { kind, description });
  const names = new Set(all.map((one) => one.description));
  if (names.size > 1)
    for (const [rank, one] of all.entries()) output.info(`adapter of ${link.nameOf(rank)}: ${one.description}`);
  const sharing = all.flatMap((one, rank) => {
    const key = (other: number) => `${link.members[other]?.machine} ${all[other]?.description}`;
    const others = all.map((_, other) => other).filter((other) => key(other) === key(rank));
    return one.kind === "hardware" && others.length > 1 && others[0] === rank ? [others] : [];
  });
  for (const group of sharing) {
    output.warning(
      `ranks ${group.join(", ")} have GPUs of one name on one machine: if it is one GPU, they only share it; of several, make one visible to each rank (docs/scale.md).`,
    );
  }
}

/**
 * Compares the files of a model's folder on all ranks. Ranks that read the very same file, such as those of one machine,
 * need not read it for that.
 *
 * @param folders by the options that name them
 * @throws RankError that names the first rank and file that differ
 */
export async function checkModelFolders(folders: Readonly<Record<string, string | undefined>>): Promise<void> {
  const ranks = rankProcess();
  if (ranks === undefined) return;
  for (const [option, folder] of Object.entries(folders)) {
    await checkFolder(ranks.link, option, folder);
  }
}

/**
 * Compares the files of one model's folder; each rank gives the folder that it has, if it has one: where a name stands
 * for an adapter on one rank and for a whole model on another, options are alike and folders are not.
 *
 * @throws RankError that names the first rank and file that differ
 */
export async function checkFolder(link: NamedRanks, option: string, folder: string | undefined): Promise<void> {
  const paths = new Map<string, string>();
  if (folder !== undefined) {
    for (const name of await platform.list(folder)) {
      if (MODEL_FILES.test(name)) paths.set(name, platform.joinPath(folder, name));
    }
  }
  const machine = link.members[link.rank]?.machine ?? "";
  const identities = Object.fromEntries([...paths].map(([name, path]) => [name, identityOf(machine, path)]));
  const all = await gatherJson(link, identities);
  const isFirstWith = (name: string) => all.findIndex((one) => one[name] === identities[name]) === link.rank;
  const differs = (name: string) => all.some((one) => one[name] !== all[0]?.[name]);
  const digests: Record<string, string> = {};
  for (const [name, path] of paths) {
    if (differs(name) && isFirstWith(name)) digests[name] = await digestOf(path);
  }
  const gathered = await gatherJson(link, digests);
  const digestAt = (rank: number, name: string) => {
    const reader = all.findIndex((one) => one[name] === all[rank]?.[name]);
    return gathered[reader]?.[name];
  };
  for (const name of new Set(all.flatMap((one) => Object.keys(one)))) {
    if (!differs(name)) continue;
    for (let rank = 1; rank < link.size; rank++) {
      if (digestAt(rank, name) === digestAt(0, name)) continue;
      const [isThere, isFirsts] = [rank, 0].map((one) => all[one]?.[name] !== undefined);
      const other = isFirsts
        ? `has another ${name} in its ${option} than rank 0`
        : `has ${name} in its ${option}, and rank 0 has none`;
      const what = isThere ? other : `has no ${name} in its ${option}`;
      throw new RankError(`${link.nameOf(rank)} ${what}: copy rank 0's files to its machine.`);
    }
  }
}

/** Equal only for the same file as it is now. */
function identityOf(machine: string, path: string): string {
  const { dev, ino, size, mtimeMs } = statSync(path);
  return [machine, dev, ino, size, mtimeMs].join(" ");
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: 2 ** 20 }), hash);
  return hash.digest("hex");
}

/** The ranks of this one's machine, in their order. */
function onThisMachine({ link }: RankProcess): number[] {
  const machine = link.members[link.rank]?.machine;
  return link.members.filter((one) => one.machine === machine).map(({ rank }) => rank);
}
