/**
 * The seam between loose options and trainers. A program gives a trainer some options, which are parsed there; the
 * command line has parsed its whole configuration and gives the trainer's part of it, which is taken as it is. So
 * everything that a trainer runs with was parsed once.
 */
import * as z from "zod";
import { ConfigError } from "../../errors.ts";
import { trainerShape } from "./option.ts";
import { type ParseContext, parseOptions } from "./parse.ts";

const checked: unique symbol = Symbol("checked");

/**
 * Options of a trainer that are complete and in range; frozen, and marked with the parser. Made by `TrainerParser`
 * only; a copy is loose again.
 */
export type Checked<Options> = Readonly<Options> & { readonly [checked]: object };

function parserOf(options: object): unknown {
  return checked in options ? options[checked] : undefined;
}

/** Makes the checked options of one trainer, from loose options or from a command's configuration. */
export class TrainerParser<Options extends object> {
  readonly #command: z.ZodObject;
  readonly #context: ParseContext;
  readonly #check: (options: Options) => Options;

  /**
   * @param command the schema of the command, whose marked options are the trainer's
   * @param check throws ConfigError for options that contradict each other; returns them with values settled
   */
  constructor(command: z.ZodObject, context: ParseContext, check: (options: Options) => Options) {
    this.#command = command;
    this.#context = context;
    this.#check = check;
  }

  /** The trainer's options among the command's, with the same ranges and defaults. */
  get schema(): z.ZodObject {
    return z.strictObject(trainerShape(this.#command.shape as Record<string, z.ZodType>));
  }

  /**
   * Parses loose options and fills in the defaults; those that this parser checked come back as they are.
   *
   * @throws ConfigError, one sentence, also for options that another trainer's parser checked
   */
  parse(options: Partial<Options> | Checked<Options> = {}): Checked<Options> {
    if (parserOf(options) === this) return options as Checked<Options>;
    if (checked in options) {
      throw new ConfigError(
        "The options were checked for another trainer, whose defaults are not this one's; give the options themselves, before they are checked.",
      );
    }
    return this.#mark(this.#check(parseOptions(this.schema, { ...options }, this.#context) as Options));
  }

  /** The trainer's part of a configuration that a command has parsed. */
  partOf(config: Options): Checked<Options> {
    const { shape } = this.schema;
    const own = Object.entries(config).filter(([name]) => name in shape);
    return this.#mark(Object.fromEntries(own) as Options);
  }

  #mark(options: Options): Checked<Options> {
    // Not enumerable: a copy with another value must be parsed again.
    return Object.freeze(Object.defineProperty(options, checked, { value: this })) as Checked<Options>;
  }
}
