// Saves one checkpoint after the other, under new tags or always in the place of the last one, until it is killed.
import { Bloom, bloomPresets } from '@ds/nn';
import { CheckpointReader, initialize, loadCheckpoint, saveCheckpoint } from '@ds/zero';

const [dir, tags] = process.argv.slice(2);
const model = new Bloom({ ...bloomPresets['bloom-tiny'], hiddenSize: 32, heads: 4, vocabSize: 97 });
const engine = await initialize({
  model,
  config: { train_micro_batch_size_per_gpu: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } } },
});
let step = 0;
try {
  CheckpointReader.open(dir)[Symbol.dispose]();
  step = (await loadCheckpoint(engine, dir)).step;
} catch (error) {
  if (error.code !== 'CHECKPOINT') throw error;
}
console.log(`at ${step}`);
for (;;) {
  step++;
  await saveCheckpoint(engine, dir, tags === 'same' ? 'best' : `step-${step}`, { step });
  console.log(`saved ${step}`);
}
