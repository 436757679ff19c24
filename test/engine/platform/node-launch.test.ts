import { expect, test } from "vitest";
import { launchOf } from "../../../src/engine/platform/node-launch.ts";

test.each([
  ["nothing", {}, undefined],
  ["one rank", { OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "1" }, undefined],
  [
    "Open MPI's mpirun, which sets PMIx's variables too",
    { OMPI_COMM_WORLD_RANK: "3", OMPI_COMM_WORLD_SIZE: "4", OMPI_COMM_WORLD_LOCAL_RANK: "1", PMIX_RANK: "3" },
    { launcher: "Open MPI", rank: 3, size: 4, localRank: 1 },
  ],
  [
    "srun with PMIx",
    { PMIX_RANK: "5", SLURM_STEP_NUM_TASKS: "8", SLURM_NTASKS: "16", SLURM_LOCALID: "1" },
    { launcher: "PMIx", rank: 5, size: 8, localRank: 1 },
  ],
  ["a job of Slurm without srun", { SLURM_PROCID: "0", SLURM_NTASKS: "8" }, undefined],
  ["MPICH's Hydra", { PMI_RANK: "1", PMI_SIZE: "2" }, { launcher: "MPICH", rank: 1, size: 2, localRank: 0 }],
  ["a number that is none", { PMI_RANK: "one", PMI_SIZE: "2" }, undefined],
])("%s", (_, environment, launch) => {
  expect(launchOf(environment)).toEqual(launch);
});
