/** What a GPU needs at least: its memory by a copy measured in the run, its arithmetic by what the maker says of the card. */

/** Dense bf16 products with f32 sums, TFLOP/s, from NVIDIA's data sheets; the first name that fits counts. */
const peaks = [
  [/H100 PCIe/, 756],
  [/H100 NVL/, 835],
  [/H100|H200|GH200/, 989.4],
  [/B200|GB200/, 2250],
  [/A100|A800/, 312],
  [/L40S/, 362],
];

/** FLOP/s of a card, undefined for one that the table lacks. */
export function peakFlops(gpuName) {
  const found = peaks.find(([pattern]) => pattern.test(gpuName));
  return found && found[1] * 1e12;
}

const COPY_BYTES = 2 ** 30;
const COPIES = 10;

/** Bytes a second, read and written, of our copy kernel; the bench cuda/copy compares it with cudaMemcpy. */
async function copyBandwidth(core, device) {
  const { emulated, devices } = core.cudaDevices();
  const elements = emulated ? 2 ** 12 : Math.min(COPY_BYTES, devices[0].free / 8) / 4;
  const [x, y] = [0, 1].map(() => core.fill(core.Tensor.empty([Math.floor(elements)], { device }), 1));
  const { stream } = core.device(device);
  core.copy(x, y);
  await stream.join();
  const start = performance.now();
  for (let i = 0; i < COPIES; i++) core.copy(x, y);
  await stream.join();
  const seconds = (performance.now() - start) / 1000 / COPIES;
  for (const tensor of [x, y]) tensor.dispose();
  return (2 * 4 * Math.floor(elements)) / seconds;
}

/** Makes the function that gives the least seconds for a bench's bytes and operations; see `measure` of harness.mjs. */
export function cudaSeconds(core, device) {
  const peak = peakFlops(core.cudaDevices().devices[0].name);
  return async ({ bytes = 0, flops = 0, tensorCores = false }) => {
    const moved = bytes === 0 ? 0 : bytes / (await copyBandwidth(core, device));
    // Only products run on tensor cores; other ops count their bytes alone.
    const computed = tensorCores && peak ? flops / peak : 0;
    return Math.max(moved, computed);
  };
}
