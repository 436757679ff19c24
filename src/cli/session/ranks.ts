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

/** Options that name files, whose contents are compared in place of their names. */
const FILE_OPTIONS: readonly string[] = [
  ...["model_name_or_path", "ref_model_name_or_path", "adapter_name_or_path", "chat_template_path"],
  ...["dataset_name", "eval_dataset_name", "resume_from_checkpoint"],
];

/** Files of a model folder that say what the model computes and which tokens it reads. */
const MODEL_FILES = /\.(safetensors|json|jinja|model|txt)$/;

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
  const own = Object.entries(config).filter(([name]) => ![...OWN_OPTIONS, ...FILE_OPTIONS].includes(name));
  const difference = firstDifference(await gatherJson(link, Object.fromEntries(own)));
  if (difference !== undefined) {
    const { rank, name, theirs, first } = difference;
    const value = (of: unknown) => (of === undefined ? "none" : shown(of));
    throw new RankError(
      `${link.nameOf(rank)} has ${name} ${value(theirs)}, and rank 0 has ${value(first)}: start all ranks with the same options.`,
    );
  }
  const machines = new Set(link.members.map(({ machine }) => machine)).size;
  output.info(`ranks: ${link.size} on ${counted(machines, "machine")}, ${link.library}`);
  return link;
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
    if (folder !== undefined) await checkFolder(ranks, option, folder);
  }
}

async function checkFolder(ranks: RankProcess, option: string, folder: string): Promise<void> {
  const { link } = ranks;
  const names = (await platform.list(folder)).filter((name) => MODEL_FILES.test(name));
  const machine = link.members[link.rank]?.machine ?? "";
  const identities = Object.fromEntries(
    names.map((name) => [name, identityOf(machine, platform.joinPath(folder, name))]),
  );
  const all = await gatherJson(link, identities);
  const isFirstWith = (name: string) => all.findIndex((one) => one[name] === identities[name]) === link.rank;
  const differs = (name: string) => all.some((one) => one[name] !== all[0]?.[name]);
  const digests: Record<string, string> = {};
  for (const name of names) {
    if (differs(name) && isFirstWith(name)) digests[name] = await digestOf(platform.joinPath(folder, name));
  }
  const gathered = await gatherJson(link, digests);
  const digestAt = (rank: number, name: string) => {
    const reader = all.findIndex((one) => one[name] === all[rank]?.[name]);
    return gathered[reader]?.[name];
  };
  for (const name of Object.keys(all[0] ?? {})) {
    if (!differs(name)) continue;
    for (let rank = 1; rank < link.size; rank++) {
      if (digestAt(rank, name) === digestAt(0, name)) continue;
      const isThere = all[rank]?.[name] !== undefined;
      const what = isThere ? `has another ${name} in its ${option} than rank 0` : `has no ${name} in its ${option}`;
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
