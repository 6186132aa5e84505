/** Whole models: a training step of a 1.3B BLOOM, and greedy decoding of a small one, against PyTorch eager (rivals/bloom.py). */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { exportFolder } from '../bloom-step.mjs';
import { rivalDevice } from '../op-bench.mjs';
import { lastingPythonRival, ProcessSide } from '../process-side.mjs';

const program = fileURLToPath(new URL('../step-side.mjs', import.meta.url));

const full = {
  step: { hiddenSize: 2048, layers: 24, heads: 16, vocabSize: 50304, length: 2048, batch: 2 },
  decode: { hiddenSize: 768, layers: 12, heads: 12, vocabSize: 50304 },
  promptTokens: 64,
  newTokens: 128,
};
const tiny = {
  step: { hiddenSize: 32, layers: 2, heads: 2, vocabSize: 64, length: 16, batch: 2 },
  decode: { hiddenSize: 32, layers: 2, heads: 2, vocabSize: 64 },
  promptTokens: 5,
  newTokens: 6,
};

/** The two sides start from the same weights in a model of so many layers; the one that is timed has more of the same. */
const EQUAL_LAYERS = 2;
const EQUAL_STEPS = 3;
/** How far losses may lie apart: float noise, which a wrong mask or rate exceeds; and eight bits through a few layers. */
const tolerances = { fp32: 2e-5, bf16: 2e-3 };

/** Operations of a step: 6 a weight of a matrix (the tied head's included) and token, 6 L C T for causal attention. */
function flopsOf({ hiddenSize: C, layers: L, vocabSize: V, length: T, batch: B }) {
  return (6 * (12 * L * C * C + V * C) + 6 * L * C * T) * B * T;
}

function temporaryFolder() {
  const folder = mkdtempSync(path.join(tmpdir(), 'ds-bloom-'));
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

function ourStep(core, device, sizes, { bf16, folder }) {
  const prepare = { sizes, threads: core.threads(), bf16, folder, device };
  return new ProcessSide('ours', [process.execPath, program], { prepare });
}

function theirStep(core, device, sizes, { bf16, folder }) {
  const prepare = { kind: 'step', sizes, bf16, folder, threads: core.threads(), device: rivalDevice(core, device) };
  return lastingPythonRival('torch eager', 'bloom.py', { prepare });
}

/** Compares losses of a few steps from the same weights, in a model of few layers. Nothing to compare with is an error. */
async function equalSteps(core, device, sizes) {
  const { folder, remove } = temporaryFolder();
  const model = path.join(folder, 'model');
  // First weights as small as usual would hide a wrong mask: with these, every linear layer keeps the size of its input.
  const few = { ...sizes, layers: EQUAL_LAYERS, initializerRange: 1.5 / Math.sqrt(sizes.hiddenSize) };
  for (const [kind, tolerance] of Object.entries(tolerances)) {
    const bf16 = kind === 'bf16';
    // The folder of the fp32 run serves both: one written in bf16 would round the master weights that ours still has.
    const sides = [
      ourStep(core, device, few, { bf16, folder: bf16 ? undefined : model }),
      theirStep(core, device, few, { bf16, folder: model }),
    ];
    const losses = [];
    for (const side of sides) {
      if (side.missing) throw new Error(`nothing to compare with: ${side.missing}`);
      await side.start();
      await side.run(EQUAL_STEPS);
      losses.push((await side.outputs(folder)).outputs.losses);
      await side.stop();
    }
    losses[0].forEach((loss, i) => {
      if (!(Math.abs(loss - losses[1][i]) <= tolerance * losses[1][i]))
        throw new Error(`step ${i} in ${kind}: our loss is ${loss}, the rival's ${losses[1][i]}`);
    });
  }
  remove();
}

function stepBench(core, device, sizes) {
  const name = 'cuda/step/1.3b/bf16';
  const make = async () => {
    // Before either side holds a model: both of this size would not fit beside a third.
    await equalSteps(core, device, sizes);
    return {
      name,
      task: `training step of a BLOOM of ${sizes.layers} x ${sizes.hiddenSize}, ${sizes.batch} x ${sizes.length} tokens, bf16 weights, fp32 master (rival: fp32 weights, bf16 products), ${device}; equal losses at ${EQUAL_LAYERS} layers; roofline: MFU`,
      ours: ourStep(core, device, sizes, { bf16: true }),
      rival: theirStep(core, device, sizes, { bf16: true }),
      amount: sizes.batch * sizes.length,
      unit: 'tokens/s',
      roofline: { flops: flopsOf(sizes), tensorCores: true },
      equal: () => {},
    };
  };
  return { name, make };
}

/** A folder with the first weights of a model. */
async function writeModel({ core, nn, zero }, sizes, folder) {
  const model = new nn.Bloom({ ...nn.bloomPresets['bloom-125m'], ...sizes });
  const group = core.ProcessGroup.single();
  const config = { train_batch_size: 1, optimizer: { type: 'AdamW', params: { lr: 1e-3 } }, seed: 1 };
  const engine = await zero.initialize({ model, config, group });
  await exportFolder(engine, model, folder);
  engine[Symbol.dispose]();
  model[Symbol.dispose]();
  group[Symbol.dispose]();
}

function decodeBench(packages, device, { decode: sizes, promptTokens, newTokens }) {
  const { core, inference } = packages;
  const name = 'cuda/decode/125m/bf16';
  const make = async () => {
    const { folder, remove } = temporaryFolder();
    const model = path.join(folder, 'model');
    await writeModel(packages, sizes, model);
    const prompt = Array.from({ length: promptTokens }, (_, t) => (t * 7919 + 3) % sizes.vocabSize);
    const options = { maxNewTokens: newTokens, greedy: true, ignoreEos: true };
    const idsOn = async (where) => {
      const engine = await inference.InferenceEngine.load(model, { device: where });
      const { ids } = await engine.generate(prompt, { ...options, maxNewTokens: Math.min(newTokens, 32) }).final();
      await engine[Symbol.asyncDispose]();
      return ids.join(' ');
    };
    let engine;
    const spec = { kind: 'decode', sizes, folder: model, prompt, count: newTokens };
    return {
      name,
      task: `greedy decoding of one sequence, ${sizes.layers} x ${sizes.hiddenSize}, ${promptTokens} tokens and ${newTokens} new ones, ${device}; in fp32 the ids are the CPU's`,
      ours: {
        name: 'ours',
        async start() {
          engine = await inference.InferenceEngine.load(model, { device, dtype: 'bf16' });
        },
        async run(iterations) {
          for (let i = 0; i < iterations; i++) await engine.generate(prompt, options).final();
        },
        async stop() {
          await engine?.[Symbol.asyncDispose]();
          remove();
        },
      },
      rival: lastingPythonRival('torch eager', 'bloom.py', {
        prepare: { ...spec, threads: core.threads(), device: rivalDevice(core, device) },
      }),
      amount: newTokens,
      unit: 'tokens/s',
      async equal() {
        const [got, want] = [await idsOn(device), await idsOn('cpu')];
        if (got !== want) throw new Error(`greedy ids are ${got}, the CPU's ${want}`);
      },
    };
  };
  return { name, make };
}

export function benches({ core, require, device }) {
  const sizes = core.cudaDevices().emulated ? tiny : full;
  const packages = { core, nn: require('@ds/nn'), zero: require('@ds/zero'), inference: require('@ds/inference') };
  return [stepBench(core, device, sizes.step), decodeBench(packages, device, sizes)];
}
