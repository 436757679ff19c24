/** The hub's own library, @huggingface/hub, an optional peer: only uploads need it, so npm does not install it along. */
import { pathToFileURL } from "node:url";
import { errorMessage, ResourceError } from "../../errors.ts";
import type { HubClient } from "./platform.ts";

export async function loadHubClient(): Promise<HubClient> {
  const { createRepo, uploadFiles, whoAmI } = await load();
  return {
    whoAmI: async (access) => await whoAmI({ ...access }),
    async createRepo(access, name, visibility) {
      await createRepo({ ...access, repo: { type: "model", name }, ...(visibility ? { visibility } : {}) });
    },
    async uploadFiles(access, name, files, commitTitle) {
      await uploadFiles({
        ...access,
        repo: { type: "model", name },
        files: files.map(({ path, name: file }) => ({ path: file, content: pathToFileURL(path) })),
        commitTitle,
      });
    },
  };
}

async function load() {
  try {
    return await import("@huggingface/hub");
  } catch (error) {
    throw new ResourceError(
      `push_to_hub needs the package @huggingface/hub, which cannot be loaded (${errorMessage(error)}): npm install @huggingface/hub.`,
      { cause: error },
    );
  }
}
