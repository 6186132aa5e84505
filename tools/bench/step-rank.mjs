/** One rank of a data-parallel training: warms up, takes the time of some steps, and says it as a line of JSON. */
import { device, ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize } from '@ds/zero';
import { exportFolder, rowsOf } from './bloom-step.mjs';

const { sizes, stage, iterations, folder } = JSON.parse(process.argv[2]);
const group = await ProcessGroup.fromEnvironment();
const model = new Bloom({ ...bloomPresets['bloom-125m'], ...sizes });
const batch = sizes.batch / group.size;
const engine = await initialize({
  model,
  group,
  config: {
    train_micro_batch_size_per_gpu: batch,
    optimizer: { type: 'AdamW', params: { lr: 1e-4, weight_decay: 0.01 } },
    zero_optimization: { stage },
  },
});
if (folder) await exportFolder(engine, model, folder, group.rank === 0);
const rows = rowsOf(batch, sizes.length, sizes.vocabSize, group.rank);
const losses = [];
const step = async () => losses.push((await engine.trainBatch(() => ({ rows }))).loss);
await step();
const start = performance.now();
for (let i = 0; i < iterations; i++) await step();
const seconds = (performance.now() - start) / 1000;
const peaks = await group.exchange(String(Math.round(process.resourceUsage().maxRSS / 1024)));
if (group.rank === 0)
  console.log(
    JSON.stringify({
      seconds,
      losses,
      peak_rss_mb: Math.max(...peaks.map(Number)),
      account_peak_mb: Math.round(device('cpu').account().peak / 2 ** 20),
    }),
  );
group.destroy();
