/**
 * vitest's runner with a clock: adds to the file $KTO_TEST_PROFILE a line for each test and each test file, with the
 * processor seconds that it took, those of its threads and of the processes it started included. For slow-tests.mjs.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { relative } from "node:path";
import { TestRunner } from "vitest";

const TICKS_PER_SECOND = 100;

/** Of this process, with all its threads, and of the children whose end it has seen (man 5 proc). */
function processorSeconds() {
  const stat = readFileSync("/proc/self/stat", "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [own, children] = [
    [11, 12],
    [13, 14],
  ].map((places) => places.reduce((sum, place) => sum + Number(fields[place]), 0) / TICKS_PER_SECOND);
  return { own, children };
}

export default class ProfilingRunner extends TestRunner {
  #file;
  #started = new Map();

  onCollectStart(file) {
    this.#file = relative(this.config.root, file.filepath);
    this.#start("file");
    super.onCollectStart(file);
  }

  onCollected() {
    this.#tell("file", "(loading)");
  }

  async onBeforeRunTask(test) {
    this.#start(test);
    await super.onBeforeRunTask(test);
  }

  onAfterRunTask(test) {
    super.onAfterRunTask(test);
    this.#tell(test, `${test.suite === undefined ? "" : `${test.suite.name} > `}${test.name}`);
  }

  onAfterRunFiles() {
    super.onAfterRunFiles();
    this.#tell("file", undefined);
  }

  #start(key) {
    this.#started.set(key, { ...processorSeconds(), wall: performance.now() / 1000 });
  }

  #tell(key, test) {
    const before = this.#started.get(key);
    const { own, children } = processorSeconds();
    const wall = performance.now() / 1000;
    const line = {
      file: this.#file,
      test,
      own: own - before.own,
      children: children - before.children,
      wall: wall - before.wall,
    };
    appendFileSync(process.env.KTO_TEST_PROFILE, `${JSON.stringify(line)}\n`);
  }
}
