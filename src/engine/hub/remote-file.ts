/**
 * A file on the hub that is read by ranges and not downloaded, for programs that need a few bytes of a large one, such
 * as the header of weights.
 */
import { FileError } from "../../errors.ts";
import type { ReadableFile } from "../platform/index.ts";
import { describeRemote } from "./download.ts";
import { checkResponse, PassingFault, type Repository, requestOnce, withRetries } from "./http.ts";

/** @throws FileError for a file whose length the hub does not state, or a server that sends no ranges; HubUnreachableError */
export async function openRemote(repository: Repository, commit: string, name: string): Promise<ReadableFile> {
  const { settings } = repository;
  const { url, size } = await describeRemote(repository, commit, name);
  if (size === undefined) throw new FileError(`${url}: its server does not say how long the file is.`);
  return {
    path: url,
    size,
    async read(offset, length) {
      if (offset + length > size) throw new FileError(`${url} has ${size} bytes, fewer than are to be read.`);
      const headers = { Range: `bytes=${offset}-${offset + length - 1}` };
      return await withRetries(settings, `read ${url}`, () =>
        requestOnce(settings, { url, method: "GET", headers }, async (response) => {
          checkResponse(repository, response, name);
          if (response.status !== 206) {
            throw new FileError(
              `${url}: its server sends whole files only (HTTP ${response.status} to a question for ${length} bytes); download the model, or set HF_ENDPOINT to another server.`,
            );
          }
          const bytes = new Uint8Array(await response.arrayBuffer());
          if (bytes.length === length) return bytes;
          throw new PassingFault(`${bytes.length} of ${length} bytes came`);
        }),
      );
    },
    close: async () => undefined,
  };
}
