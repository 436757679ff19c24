/**
 * Loaded before `kto` by ranks-test.ts: the rank LOSE_RANK destroys its device some seconds after it has opened it, which
 * is what a lost device looks like. Plain JavaScript, since Node loads it by --import.
 */

if (process.env.OMPI_COMM_WORLD_RANK === process.env.LOSE_RANK) {
  const { globals } = await import("webgpu");
  const { requestDevice } = globals.GPUAdapter.prototype;
  globals.GPUAdapter.prototype.requestDevice = async function (...words) {
    const device = await requestDevice.apply(this, words);
    setTimeout(() => device.destroy(), 6000).unref();
    return device;
  };
}
