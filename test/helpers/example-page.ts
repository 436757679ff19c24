/** What a visitor does on the page of examples/browser, for its test and for scripts/browser-long.ts. */
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import type { TrainingChoices } from "../../examples/browser/protocol.ts";

export class ExamplePage {
  readonly page: Page;

  constructor(page: Page) {
    this.page = page;
  }

  /** Until nothing goes on, after so many updates. */
  async ready(updates: number): Promise<void> {
    const text = new RegExp(`, ${updates} updates?, .*Ready\\.`, "s");
    await this.page.getByRole("status").filter({ hasText: text }).waitFor();
  }

  button(name: string): Locator {
    return this.page.getByRole("button", { name, exact: true });
  }

  /** @param story as it is shown, from 1 */
  thumb(kind: "up" | "down", story: number): Locator {
    return this.button(`Thumb ${kind} for story ${story}`);
  }

  story(id: number): Locator {
    return this.page.locator(`.story[data-id="${id}"] p`);
  }

  async choose({ max_steps, per_device_train_batch_size, learning_rate }: TrainingChoices): Promise<void> {
    await this.page.getByLabel("Updates", { exact: true }).fill(String(max_steps));
    await this.page.getByLabel("Rows of an update").fill(String(per_device_train_batch_size));
    await this.page.getByLabel("Learning rate").fill(String(learning_rate));
  }

  /** Saves what a link gives into a folder. @returns its path there */
  async download(name: string, folder: string): Promise<string> {
    const link = this.page.getByRole("link", { name, exact: true });
    const [given] = await Promise.all([this.page.waitForEvent("download"), link.click()]);
    const path = join(folder, name);
    await given.saveAs(path);
    return path;
  }

  /** Drops files and folders of this machine on a section, as a hand does. */
  async drop(heading: string, files: readonly string[]): Promise<void> {
    const target = this.page.getByRole("region", { name: heading });
    await target.scrollIntoViewIfNeeded();
    const box = await target.boundingBox();
    const session = await this.page.context().newCDPSession(this.page);
    const at = { x: (box?.x ?? 0) + 40, y: (box?.y ?? 0) + 40 };
    const data = { items: [], files: [...files], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"] as const) {
      await session.send("Input.dispatchDragEvent", { type, ...at, data });
    }
    await session.detach();
  }
}
