// Trains a small BLOOM with ZeRO-3 on two ranks, writes it as a Hugging Face folder, loads it and lets it write: from the
// installed packages alone.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { launch, ProcessGroup } from '@ds/core-native';
import { InferenceEngine } from '@ds/inference';
import { ModelFolderWriter } from '@ds/io';
import { Bloom, bloomConfigToJson, bloomPresets, exportedName } from '@ds/nn';
import { initialize } from '@ds/zero';

const folder = path.join(process.cwd(), 'trained');

async function train() {
  const group = await ProcessGroup.fromEnvironment();
  assert.equal(group.size, 2);
  const model = new Bloom({ ...bloomPresets['bloom-tiny'], vocabSize: 64 });
  const config = {
    train_micro_batch_size_per_gpu: 2,
    optimizer: { type: 'AdamW', params: { lr: 1e-2 } },
    zero_optimization: { stage: 3 },
  };
  const engine = await initialize({ model, config, group });
  // Every token is followed by the next one.
  const rows = Array.from({ length: 2 }, (_, b) =>
    Int32Array.from({ length: 33 }, (_, t) => (t + b * 7 + group.rank) % 64),
  );
  const losses = [];
  for (let i = 0; i < 60; i++) losses.push((await engine.trainBatch(() => ({ rows }))).loss);
  assert.ok(losses.at(-1) < 0.5 && losses[0] > 3, `losses from ${losses[0]} to ${losses.at(-1)}`);
  const writer =
    group.rank === 0
      ? ModelFolderWriter.create(folder, {
          config: bloomConfigToJson(model.config, 'float32'),
          tensors: model.parameters.map(({ name, shape }) => ({ name: exportedName(name), dtype: 'f32', shape })),
        })
      : undefined;
  for (let unit = 0; unit < engine.plan.units.length; unit++) {
    const reads = engine.withFullUnit(unit, () =>
      engine.plan.units[unit].layout.places.map(({ parameter }) => [parameter.name, parameter.value.read()]),
    );
    for (const [name, values] of reads) {
      const { buffer, byteOffset, byteLength } = await values;
      writer?.write(exportedName(name), new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  writer?.finish();
  group.destroy();
}

if (process.env.RANK !== undefined) await train();
else {
  await launch({ world: 2, script: process.argv[1] });
  assert.ok(existsSync(path.join(folder, 'model.safetensors')));
  const engine = await InferenceEngine.load(folder);
  const { ids } = await engine.generate([10, 11, 12, 13], { maxNewTokens: 6, greedy: true, ignoreEos: true }).final();
  assert.deepEqual([...ids], [14, 15, 16, 17, 18, 19]);
  await engine[Symbol.asyncDispose]();
}
