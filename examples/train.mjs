// Trains a small BLOOM with ZeRO. Alone: node examples/train.mjs — on 2 ranks: npx ds launch -n 2 examples/train.mjs
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize } from '@ds/zero';

const model = new Bloom(bloomPresets['bloom-tiny']);
const config = {
  train_micro_batch_size_per_gpu: 4,
  optimizer: { type: 'AdamW', params: { lr: 1e-3 } },
  zero_optimization: { stage: 3 },
};
const engine = await initialize({ model, config });
const rows = Array.from({ length: 4 }, (_, b) => Int32Array.from({ length: 65 }, (_, t) => (t * 7 + b) % 512));
for (let i = 0; i < 20; i++) {
  const { step, loss } = await engine.trainBatch(() => ({ rows }));
  if (engine.group.rank === 0) console.log(`step ${step}: loss ${loss.toFixed(4)}`);
}
engine.group.destroy();
