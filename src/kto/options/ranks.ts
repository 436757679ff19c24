/** The options of how several ranks share the work of an update, and the checks that need several of them. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { optionGroup } from "./option.ts";

const { trainerOption } = optionGroup("Several ranks (mpirun)");

export const ranksOptions = {
  shard_optimizer: trainerOption(z.boolean().default(false), {
    description:
      "let each rank keep the optimizer's moments of its share of the parameters alone, and update that share; the numbers are the same",
  }),
  sync_every: trainerOption(z.number().int().min(1).optional(), {
    description:
      "DiLoCo, for slow links: so many updates of each rank by itself, then one outer step on the mean of what they changed; default: gradients are summed in every update",
  }),
  outer_learning_rate: trainerOption(z.number().positive().default(0.7), {
    description: "how far the outer step goes along the mean of what ranks changed, with sync_every",
    aliases: ["outer_lr"],
  }),
  outer_momentum: trainerOption(z.number().min(0).lt(1).default(0.9), {
    description: "Nesterov momentum of the outer step, with sync_every",
  }),
};

interface RanksOptions {
  readonly shard_optimizer: boolean;
  readonly sync_every?: number | undefined;
}

/** @throws ConfigError for options that contradict each other */
export function checkRanksOptions({ shard_optimizer, sync_every }: RanksOptions): void {
  if (shard_optimizer && sync_every !== undefined) {
    throw new ConfigError(
      "shard_optimizer and sync_every are both set, but ranks that update by themselves need all moments: keep one.",
    );
  }
}
