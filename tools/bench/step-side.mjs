/** A training step of BLOOM by @ds/zero, one process of it or one rank of several; see benches/step.mjs. */
import { device, ProcessGroup, setThreads } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize } from '@ds/zero';
import { exportFolder, rowsOf } from './bloom-step.mjs';
import { serve } from './node-side.mjs';

await serve(async ({ sizes, threads, bf16, stage = 0, folder, device: name = 'cpu' }) => {
  const group = await ProcessGroup.fromEnvironment();
  if (group.size === 1) setThreads(threads);
  const model = new Bloom({ ...bloomPresets['bloom-125m'], ...sizes });
  const batch = sizes.batch / group.size;
  const engine = await initialize({
    model,
    group,
    device: name,
    config: {
      train_micro_batch_size_per_gpu: batch,
      optimizer: { type: 'AdamW', params: { lr: 1e-4, weight_decay: 0.01 } },
      zero_optimization: { stage },
      ...(bf16 ? { bf16: { enabled: true } } : {}),
    },
  });
  if (folder) await exportFolder(engine, model, folder);
  const rows = rowsOf(batch, sizes.length, sizes.vocabSize, group.rank);
  const losses = [];
  return {
    async run() {
      losses.push((await engine.trainBatch(() => ({ rows }))).loss);
    },
    outputs: async () => ({ losses }),
    facts: async () => ({ account_peak_mb: Math.round(device(name).account().peak / 2 ** 20) }),
  };
});
