/** A training step of BLOOM by @ds/zero, one process of it or one rank of several; see benches/step.mjs. */
import { device, ProcessGroup, setThreads } from '@ds/core-native';
import { ModelFolderWriter } from '@ds/io';
import { Bloom, bloomConfigToJson, bloomPresets, exportedName } from '@ds/nn';
import { initialize } from '@ds/zero';
import { serve } from './node-side.mjs';

/** The same tokens on both sides, from a formula. */
export function rowsOf(batch, length, vocabSize, rank = 0) {
  return Array.from({ length: batch }, (_, b) =>
    Int32Array.from(
      { length: length + 1 },
      (_, t) => (t * 7919 + (rank * batch + b) * 104729 + ((t * t) % 251)) % vocabSize,
    ),
  );
}

/** Writes the weights as a Hugging Face folder, for the rival to start from. */
async function exportFolder(engine, model, folder) {
  const { parameters } = model;
  const dtype = engine.config.paramDtype === 'bf16' ? 'bf16' : 'f32';
  const writer = ModelFolderWriter.create(folder, {
    config: bloomConfigToJson(model.config, 'float32'),
    tensors: parameters.map(({ name, shape }) => ({ name: exportedName(name), dtype, shape })),
    overwrite: true,
  });
  for (let unit = 0; unit < engine.plan.units.length; unit++) {
    const reads = engine.withFullUnit(unit, () =>
      engine.plan.units[unit].layout.places.map(({ parameter }) => [parameter.name, parameter.value.read()]),
    );
    for (const [name, values] of reads) {
      const { buffer, byteOffset, byteLength } = await values;
      writer.write(exportedName(name), new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  writer.finish();
}

await serve(async ({ sizes, threads, bf16, stage = 0, folder }) => {
  const group = await ProcessGroup.fromEnvironment();
  if (group.size === 1) setThreads(threads);
  const model = new Bloom({ ...bloomPresets['bloom-125m'], ...sizes });
  const batch = sizes.batch / group.size;
  const engine = await initialize({
    model,
    group,
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
    facts: async () => ({ account_peak_mb: Math.round(device('cpu').account().peak / 2 ** 20) }),
  };
});
