/**
 * Whether this process is one of several that a launcher of MPI started (mpirun, srun), by the variables that
 * launchers set. It loads no MPI: a process that was started alone, or as the only rank, never does.
 */

/** What the launcher says of this process. */
export interface Launch {
  /** From 0. */
  readonly rank: number;
  /** At least 2. */
  readonly size: number;
  /** The number of this rank among those of the same machine. */
  readonly localRank: number;
  /** Whose MPI the launcher belongs to; "PMIx" is served by Open MPI and newer MPICHs. */
  readonly launcher: "Open MPI" | "MPICH" | "PMIx";
}

type Environment = Readonly<Record<string, string | undefined>>;

/** The variables of each launcher, Open MPI's first: its mpirun sets those of PMIx too. */
const LAUNCHERS = [
  {
    launcher: "Open MPI",
    rank: "OMPI_COMM_WORLD_RANK",
    size: ["OMPI_COMM_WORLD_SIZE"],
    local: "OMPI_COMM_WORLD_LOCAL_RANK",
  },
  { launcher: "PMIx", rank: "PMIX_RANK", size: ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"], local: "SLURM_LOCALID" },
  { launcher: "MPICH", rank: "PMI_RANK", size: ["PMI_SIZE"], local: "MPI_LOCALRANKID" },
] as const;

/** Undefined for a process that runs alone. */
export function launchOf(environment: Environment): Launch | undefined {
  for (const { launcher, rank: name, size: sizes, local } of LAUNCHERS) {
    const rank = whole(environment[name]);
    if (rank === undefined) continue;
    const size = sizes.map((one) => whole(environment[one])).find((one) => one !== undefined);
    if (size === undefined || size < 2) return undefined;
    return { launcher, rank, size, localRank: whole(environment[local]) ?? 0 };
  }
  return undefined;
}

function whole(text: string | undefined): number | undefined {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}
