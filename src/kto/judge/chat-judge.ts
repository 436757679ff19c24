/**
 * A judge behind the OpenAI chat protocol, which most servers of models speak: POST {base}/chat/completions. Asks again
 * after errors that pass, within a budget of requests, and hands every exchange to whoever keeps transcripts.
 */
import { asPhrase, errorMessage, JudgeError } from "../../errors.ts";
import { answerWithin, type Judge, type JudgeWait, type Question, type Verdict } from "./judge.ts";

/** `timeoutMs` is for one request. */
export interface ChatJudgeOptions extends JudgeWait {
  /** Up to and without "/chat/completions", e.g. "https://api.openai.com/v1". */
  readonly baseUrl: string;
  readonly model: string;
  /** Sent as a bearer token; written nowhere. */
  readonly apiKey?: string | undefined;
  /** Requests in all, those that fail included; default no limit. */
  readonly budget?: number | undefined;
  /** Requests for one question at most; default 6. */
  readonly attempts?: number | undefined;
  /** Pause before the second request, doubled before each further one; default 1000 ms. */
  readonly backoffMs?: number | undefined;
  /** More fields of the request, e.g. max_tokens; null leaves one of ours out. */
  readonly request?: Readonly<Record<string, unknown>> | undefined;
  readonly onTranscript?: (entry: Transcript) => Promise<void>;
}

/** One request and what came of it. */
export interface Transcript extends Question {
  readonly attempt: number;
  readonly ms: number;
  /** The server's HTTP status, if it answered. */
  readonly status?: number;
  readonly reply?: string;
  /** Absent where the reply holds none, or there is no reply. */
  readonly verdict?: Verdict;
  readonly error?: string;
  /** Tokens as the server counts them. */
  readonly usage?: unknown;
}

const LONGEST_PAUSE_MS = 60_000;
/** A reply without a verdict is asked for once more, then counts as a tie. */
const MOST_UNCLEAR = 2;
/** Characters of a server's error that a message quotes. */
const QUOTED = 200;

const INSTRUCTIONS = `You compare two answers to the same request. Decide which one serves the person who asked better: is it right, does it do what was asked, is it clear, is it harmless? Neither length nor the order in which the answers are shown is a merit. Give your reasons in a sentence or two, then end with a line of exactly one of these forms:
Verdict: A
Verdict: B
Verdict: tie`;

type Outcome =
  | { readonly kind: "reply"; readonly reply: string; readonly status: number; readonly usage: unknown }
  | {
      readonly kind: "passing" | "lasting";
      readonly error: string;
      readonly status?: number;
      readonly pauseMs?: number;
    };

export class ChatJudge implements Judge {
  readonly name: string;
  readonly #options: ChatJudgeOptions;
  readonly #url: string;
  #requests = 0;
  #unclear = 0;

  /** @throws JudgeError if the address is none */
  constructor(options: ChatJudgeOptions) {
    this.#options = options;
    this.#url = `${options.baseUrl.replace(/\/+$/, "")}/chat/completions`;
    if (!/^https?:\/\//.test(this.#url) || !URL.canParse(this.#url)) {
      throw new JudgeError(
        `judge_base_url is "${options.baseUrl}"; it must be an address such as https://api.openai.com/v1.`,
      );
    }
    this.name = `${options.model} at ${options.baseUrl}`;
  }

  /** Requests sent so far. */
  get requests(): number {
    return this.#requests;
  }

  /** Questions whose replies held no verdict and counted as ties. */
  get unclear(): number {
    return this.#unclear;
  }

  async compare(question: Question): Promise<Verdict | undefined> {
    const { attempts = 6, backoffMs = 1000, budget = Number.POSITIVE_INFINITY, signal } = this.#options;
    let unclear = 0;
    for (let attempt = 1; ; attempt++) {
      if (this.#requests >= budget) return undefined;
      this.#requests++;
      const started = performance.now();
      const outcome = await this.#ask(question);
      const verdict = outcome.kind === "reply" ? readVerdict(outcome.reply) : undefined;
      const { kind, pauseMs, ...told } = { pauseMs: undefined, ...outcome };
      const ms = Math.round(performance.now() - started);
      await this.#options.onTranscript?.({ ...question, attempt, ms, ...told, ...(verdict ? { verdict } : {}) });
      if (verdict !== undefined) return verdict;
      if (outcome.kind === "reply") {
        if (++unclear < MOST_UNCLEAR) continue;
        this.#unclear++;
        return "tie";
      }
      if (kind === "lasting" || attempt >= attempts) {
        const times = attempt === 1 ? "" : ` (asked ${attempt} times)`;
        throw new JudgeError(`The judge ${this.name} cannot be asked${times}: ${outcome.error}.`);
      }
      const pause = Math.min(LONGEST_PAUSE_MS, pauseMs ?? backoffMs * 2 ** (attempt - 1));
      // As for an answer that does not come.
      await answerWithin(() => new Promise(() => {}), { timeoutMs: pause, signal }).catch(() => undefined);
      if (signal?.aborted) throw new JudgeError(`The judge ${this.name} is not waited for any more.`);
    }
  }

  async #ask(question: Question): Promise<Outcome> {
    const { apiKey, timeoutMs = 60_000, signal } = this.#options;
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.#url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
        },
        body: JSON.stringify(this.#body(question)),
        signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal ? [signal] : [])]),
      });
      text = await response.text();
    } catch (error) {
      const isLate = error instanceof Error && error.name === "TimeoutError";
      return { kind: "passing", error: isLate ? `no answer within ${timeoutMs / 1000} s` : networkReason(error) };
    }
    const { status } = response;
    if (!response.ok) {
      const passes = status === 408 || status === 429 || status >= 500;
      const pauseMs = retryAfterMs(response.headers.get("retry-after"));
      const error = `it answers with status ${status}${serverReason(text)}${advice(status)}`;
      return { kind: passes ? "passing" : "lasting", error, status, ...(pauseMs === undefined ? {} : { pauseMs }) };
    }
    const { reply, usage } = readReply(text);
    if (reply !== undefined) return { kind: "reply", reply, status, usage };
    return { kind: "passing", error: `its answer is no chat completion: ${asPhrase(text).slice(0, QUOTED)}`, status };
  }

  #body({ prompt, a, b }: Question): Record<string, unknown> {
    const request = {
      model: this.#options.model,
      messages: [
        { role: "system", content: INSTRUCTIONS },
        {
          role: "user",
          content: `<request>\n${prompt}\n</request>\n\n<answer_a>\n${a}\n</answer_a>\n\n<answer_b>\n${b}\n</answer_b>`,
        },
      ],
      temperature: 0,
      ...this.#options.request,
    };
    return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== null));
  }
}

/** The last verdict of a reply, or a reply that is nothing but one. */
export function readVerdict(reply: string): Verdict | undefined {
  // At the end of its line, so that "a" is not an article.
  const line = /verdict[\s*_`"':-]*(?:answer[\s*_`"']*|an? )?\b(a|b|tie)\b[ \t*_`"'.]*$/gim;
  const last = [...reply.matchAll(line)].at(-1)?.[1];
  const whole = /^[\s*_`"'.[\]()]*(a|b|tie)[\s*_`"'.[\]()]*$/i.exec(reply)?.[1];
  return (last ?? whole)?.toLowerCase() as Verdict | undefined;
}

function readReply(text: string): { reply?: string; usage?: unknown } {
  try {
    const json = JSON.parse(text) as { choices?: { message?: { content?: unknown } }[]; usage?: unknown } | null;
    const content = json?.choices?.[0]?.message?.content;
    return typeof content === "string" ? { reply: content, usage: json?.usage } : {};
  } catch {
    return {};
  }
}

/** What the server says itself, on one line. */
function serverReason(text: string): string {
  let reason = text;
  try {
    const json = JSON.parse(text) as { error?: { message?: unknown } | string; message?: unknown } | null;
    const said = typeof json?.error === "object" ? json.error?.message : (json?.error ?? json?.message);
    if (typeof said === "string") reason = said;
  } catch {
    // Not JSON: a proxy's page, of which the beginning tells enough.
  }
  return reason.trim() === "" ? "" : ` (${asPhrase(reason).slice(0, QUOTED)})`;
}

function advice(status: number): string {
  if (status === 401 || status === 403) return "; set KTO_JUDGE_API_KEY or OPENAI_API_KEY to a key that it accepts";
  if (status === 404) return "; check judge_base_url and judge_model";
  return "";
}

function networkReason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return asPhrase(errorMessage(cause) || (cause as { code?: string }).code || "the connection failed");
}

/** The pause that a server asks for, in seconds or until a date. */
function retryAfterMs(header: string | null): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  const ms = Number.isNaN(seconds) ? Date.parse(header) - Date.now() : seconds * 1000;
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
