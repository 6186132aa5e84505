/** Tiny BLOOM of test/golden: logits, 20 training steps and greedy ids on the GPU are the CPU's and the golden ones. */
import { createRequire } from 'node:module';
import path from 'node:path';
import { device, scope } from '@ds/core-native';
import { InferenceEngine } from '@ds/inference';
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize } from '@ds/zero';
import { root } from '../../programs.mjs';
import { tryCheck } from '../record.mjs';
import { stageArguments } from '../stage-arguments.mjs';

const LOGITS_TOLERANCE = 1e-4;
const LOSS_TOLERANCE = 1e-5;
const TRAINING_STEPS = 20;
const NEW_TOKENS = 16;

const { out, tiny } = stageArguments();
const require = createRequire(import.meta.url);
require('../../typescript-hook.cjs');
const { goldenPath, readGolden, readGoldenTensors } = require(path.join(root, 'test/support/golden.ts'));
const { holdBloom, largestDifference } = require(path.join(root, 'test/support/golden-bloom.ts'));
const name = 'bloom-tiny';
const golden = readGolden(name);
const prompts = tiny ? golden.prompts.slice(0, 1) : golden.prompts;

async function logits() {
  const bloom = holdBloom(name, { device: 'cuda:0' });
  const tensors = readGoldenTensors(name, 'golden.safetensors');
  let worst = 0;
  for (const [p, { input_ids }] of prompts.entries()) {
    const tensor = scope(() => bloom.model.logits(bloom.model.hidden({ ids: bloom.ids([input_ids]) })));
    worst = Math.max(worst, largestDifference(await tensor.numbers(), tensors.get(`prompt${p}.logits`).values));
    tensor.dispose();
  }
  bloom[Symbol.dispose]();
  if (!(worst < LOGITS_TOLERANCE)) throw new Error(`logits are off by ${worst}, allowed ${LOGITS_TOLERANCE}`);
  return `off by ${worst.toExponential(1)} at most`;
}

async function losses(where, steps) {
  const model = new Bloom(bloomPresets['bloom-tiny']);
  const config = { train_micro_batch_size_per_gpu: 2, optimizer: { type: 'AdamW', params: { lr: 1e-3 } }, seed: 1 };
  const engine = await initialize({ model, config, device: where });
  const rows = [0, 1].map((b) => Int32Array.from({ length: 17 }, (_, t) => (t * 7 + b * 31) % 512));
  const found = [];
  for (let i = 0; i < steps; i++) found.push((await engine.trainBatch(() => ({ rows }))).loss);
  engine[Symbol.dispose]();
  model[Symbol.dispose]();
  return found;
}

async function training() {
  const steps = tiny ? 2 : TRAINING_STEPS;
  const [want, got] = [await losses('cpu', steps), await losses('cuda:0', steps)];
  const worst = largestDifference(got, want);
  if (!(worst <= LOSS_TOLERANCE))
    throw new Error(`losses are off by ${worst}, allowed ${LOSS_TOLERANCE}: ${got}; on the CPU ${want}`);
  if (!(got.at(-1) < got[0])) throw new Error(`nothing was learnt: ${got}`);
  return `${steps} losses off by ${worst.toExponential(1)} at most, from ${got[0].toFixed(3)} to ${got.at(-1).toFixed(3)}`;
}

async function greedy() {
  const count = tiny ? 2 : NEW_TOKENS;
  const options = { maxNewTokens: count, greedy: true, ignoreEos: true };
  const engines = await Promise.all(
    ['cuda:0', 'cpu'].map((where) => InferenceEngine.load(goldenPath(name), { device: where })),
  );
  for (const { input_ids, greedy_ids } of prompts) {
    const [got, onCpu] = await Promise.all(
      engines.map(async (engine) => (await engine.generate(input_ids, options).final()).ids.join()),
    );
    if (got !== onCpu) throw new Error(`greedy ids are ${got}, the CPU's ${onCpu}`);
    const known = greedy_ids.slice(0, count).join();
    if (!got.startsWith(known)) throw new Error(`greedy ids are ${got}, the golden ones ${known}`);
  }
  for (const engine of engines) await engine[Symbol.asyncDispose]();
  return `${prompts.length} prompts of ${count} tokens`;
}

device('cuda:0');
await tryCheck(out, 'bloom', 'logits of tiny BLOOM', logits);
await tryCheck(out, 'bloom', 'training of tiny BLOOM', training);
await tryCheck(out, 'bloom', 'greedy decoding of tiny BLOOM', greedy);
process.exit();
