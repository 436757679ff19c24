/**
 * Uploads to the Hugging Face hub, by its own library @huggingface/hub (optional: downloads do not need it): a
 * repository of models, made if it is missing, and one commit of files. The token goes to the hub alone; no message has
 * it.
 */
import { asPhrase, ConfigError, errorMessage, FileError, KtoError } from "../../errors.ts";
import { type HubAccess, type HubClient, platform } from "../platform/index.ts";
import { networkFault } from "../platform/network-faults.ts";
import { PassingFault, withRetries } from "./http.ts";
import { type HubOptions, type HubSettings, hubSettings } from "./settings.ts";

/** Where to upload. */
export interface PushTarget {
  /** "user/name", or a name of the token's user. */
  readonly id: string;
  /** For a repository that is made; undefined leaves it to the account. */
  readonly isPrivate?: boolean | undefined;
  readonly client: HubClient;
  readonly settings: HubSettings & { readonly token: string };
}

/** A file of this machine and its name in the repository. */
export interface PushedFile {
  readonly path: string;
  readonly name: string;
}

/**
 * Checks that an upload can be tried; sends nothing.
 *
 * @throws ConfigError for a missing token, an id that cannot be one, and where the hub may not be used; ResourceError
 * where @huggingface/hub is not installed
 */
export async function pushTarget(
  id: string,
  { isPrivate, ...options }: HubOptions & { readonly isPrivate?: boolean | undefined },
): Promise<PushTarget> {
  if (!/^(?!\.+(\/|$))[\w.-]+(\/(?!\.+$)[\w.-]+)?$/.test(id)) {
    throw new ConfigError(`hub_model_id is "${id}"; it must be the name of a repository, as "user/name" or "name".`);
  }
  const settings = await hubSettings(options);
  const { token, offline } = settings;
  if (offline)
    throw new ConfigError("push_to_hub is set, but HF_HUB_OFFLINE forbids to use the hub; unset one of them.");
  if (token === undefined) {
    throw new ConfigError(
      "push_to_hub needs a token that may write: set HF_TOKEN in the environment, or log in with huggingface_hub.",
    );
  }
  return { id, isPrivate, client: await platform.loadHubClient(), settings: { ...settings, token } };
}

/**
 * Uploads files as one commit on the main branch.
 *
 * @returns the repository's address
 * @throws FileError with the reason, without the token
 */
export async function pushFiles(target: PushTarget, files: readonly PushedFile[], message: string): Promise<string> {
  const { settings, client } = target;
  const access = { accessToken: settings.token, hubUrl: settings.endpoint };
  const what = `push to ${target.id} on ${settings.endpoint}`;
  try {
    return await withRetries(settings, what, async () => {
      try {
        const id = target.id.includes("/") ? target.id : `${(await client.whoAmI(access)).name}/${target.id}`;
        await createRepository(target, access, id);
        await client.uploadFiles(access, id, files, message);
        return `${settings.endpoint}/${id}`;
      } catch (error) {
        throw classified(error, what);
      }
    });
  } catch (error) {
    throw withoutToken(error, settings.token);
  }
}

/** Makes the repository; one that is there already stays as it is. */
async function createRepository({ client, isPrivate }: PushTarget, access: HubAccess, id: string): Promise<void> {
  try {
    await client.createRepo(access, id, isPrivate === undefined ? undefined : isPrivate ? "private" : "public");
  } catch (error) {
    if (statusOf(error) !== 409) throw error;
  }
}

/** A fault that may pass, or the sentence for one that does not. */
function classified(error: unknown, what: string): Error {
  if (error instanceof KtoError) return error;
  const status = statusOf(error);
  if (status === undefined) {
    const { reason, mayPass } = networkFault(error);
    return mayPass && isOfNetwork(error) ? new PassingFault(reason) : new FileError(`Cannot ${what}: ${reason}.`);
  }
  if (status === 408 || status === 429 || status >= 500) return new PassingFault(`HTTP ${status}`);
  const remedies: Readonly<Record<number, string>> = {
    401: "; the token is not valid",
    403: "; the token may not write there",
    404: "; there is no such repository for this token",
  };
  return new FileError(`Cannot ${what}: HTTP ${status}, ${asPhrase(errorMessage(error))}${remedies[status] ?? ""}.`);
}

/** Fetch says "fetch failed" with a cause; other TypeErrors are faults of an argument, as of a token's form. */
function isOfNetwork(error: unknown): boolean {
  return error instanceof Error && error.cause !== undefined;
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && "statusCode" in error && typeof error.statusCode === "number"
    ? error.statusCode
    : undefined;
}

/** A server may repeat in its answer what it was sent. */
function withoutToken(error: unknown, token: string): unknown {
  if (!(error instanceof Error) || !error.message.includes(token)) return error;
  return new FileError(error.message.replaceAll(token, "(the token)"));
}
