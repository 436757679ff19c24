/** The options that name a judge and say how it is asked. */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { type OptionsOf, optionGroup } from "./option.ts";

const { option } = optionGroup("Judge");
const count = z.number().int();

export const judgeOptions = {
  judge: option(z.string().min(1).optional(), {
    description: 'a JavaScript module: export default (prompt, a, b) => "a", "b", "tie" or a number',
    expects: "a JavaScript module",
    placeholder: "module",
  }),
  judge_base_url: option(z.string().min(1).optional(), {
    description: "a server of the OpenAI chat protocol; its key is KTO_JUDGE_API_KEY or OPENAI_API_KEY",
    expects: "an address such as https://api.openai.com/v1",
    placeholder: "url",
  }),
  judge_model: option(z.string().min(1).optional(), {
    description: "the judge's model; without judge_base_url one of OpenAI's",
    expects: "a model that the server has",
    placeholder: "name",
  }),
  judge_request: option(z.record(z.string(), z.unknown()).optional(), {
    description: "more fields of each request, such as max_tokens; null leaves one out",
    expects: 'a JSON object or a mapping, such as {"temperature": null}',
  }),
  judge_budget: option(count.min(2).optional(), {
    description: "the most requests that are sent, failed ones included; each prompt takes two each time it is judged",
  }),
  judge_timeout: option(z.number().positive().max(86_400).default(60), {
    description: "seconds to wait for an answer; a request to a server is sent again a few times",
  }),
  judge_concurrency: option(count.min(1).default(4), { description: "prompts that are judged at the same time" }),
  judge_transcripts: option(z.string().min(1).default("judge-transcripts.jsonl"), {
    description: "the file that every exchange with the server is added to",
    expects: "a path that ends in .jsonl",
    placeholder: "file.jsonl",
  }),
};

export type JudgeOptions = OptionsOf<typeof judgeOptions>;

/** Whether the options name a judge. Throws ConfigError where they name two, or half of one. */
export function asksForJudge(options: JudgeOptions): boolean {
  const { judge, judge_base_url: baseUrl, judge_model: model } = options;
  if (judge !== undefined && (baseUrl !== undefined || model !== undefined)) {
    throw new ConfigError("options judge and judge_base_url or judge_model name two judges: keep one.");
  }
  if (baseUrl !== undefined && model === undefined) {
    throw new ConfigError(`option "judge_base_url" is "${baseUrl}" without a model: give judge_model as well.`);
  }
  return judge !== undefined || model !== undefined;
}
