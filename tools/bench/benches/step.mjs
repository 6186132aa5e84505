/** A whole training step of BLOOM against PyTorch and transformers: same weights, same tokens, fused AdamW on both sides. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ProcessSide, pythonRival } from '../process-side.mjs';

const program = fileURLToPath(new URL('../step-side.mjs', import.meta.url));

const models = {
  tiny: { hiddenSize: 256, layers: 4, heads: 8, vocabSize: 8192, length: 256, batch: 8 },
  '125m': { hiddenSize: 768, layers: 12, heads: 12, vocabSize: 50304, length: 256, batch: 4 },
};

/** Operations of a step: 6 a weight of a matrix (the tied head's included) and token, 12 L C T for attention. */
function flops({ hiddenSize: C, layers: L, vocabSize: V, length: T, batch: B }) {
  return (6 * (12 * L * C * C + V * C) + 12 * L * C * T) * B * T;
}

/**
 * How far losses may lie apart: float noise of two eager programs; more under torch.compile, whose approximations Adam
 * turns into steps of the learning rate wherever a gradient is zero but for noise (the keys' biases); 8 bits for bf16.
 */
const tolerances = { eager: 1e-4, compile: 1e-3, bf16: 2e-2 };

/** Compares the losses of the first steps: equal weights, gradients and updates. */
async function equalLosses({ ours, rival }, tolerance) {
  await ours.run(3);
  if (!rival) return;
  await rival.run(3);
  const [a, b] = [(await ours.outputs('.')).outputs.losses, (await rival.outputs('.')).outputs.losses];
  a.slice(0, 3).forEach((loss, i) => {
    if (!(Math.abs(loss - b[i]) <= tolerance * Math.abs(b[i])))
      throw new Error(`step ${i}: our loss is ${loss}, the rival's ${b[i]}`);
  });
}

function stepBench(core, size, kind) {
  const sizes = models[size];
  const threads = core.threads();
  const bf16 = kind === 'bf16';
  return {
    name: `step/${size}/${kind}`,
    make: async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'ds-step-'));
      const model = path.join(folder, 'model');
      const ours = new ProcessSide('ours', [process.execPath, program], {
        prepare: { sizes, threads, bf16, folder: model },
        env: { DS_NUM_THREADS: String(threads) },
      });
      const stop = ours.stop.bind(ours);
      ours.stop = async () => {
        await stop();
        rmSync(folder, { recursive: true, force: true });
      };
      const rival = pythonRival(`torch ${kind === 'compile' ? 'compile' : 'eager'}`, 'step.py', {
        module: 'transformers',
        prepare: { sizes, threads, bf16: false, compile: kind === 'compile', folder: model },
      });
      return {
        name: `step/${size}/${kind}`,
        task: `training step of BLOOM ${size}, ${sizes.batch} x ${sizes.length} tokens, ${bf16 ? 'bf16 weights, fp32 master (rival: fp32)' : 'fp32'}, ${threads} threads`,
        ours,
        rival,
        amount: sizes.batch * sizes.length,
        unit: 'tokens/s',
        roofline: { flops: flops(sizes) },
        equal: (sides) => equalLosses(sides, tolerances[kind]),
      };
    },
  };
}

export function benches({ core }) {
  return Object.keys(models).flatMap((size) => ['eager', 'compile', 'bf16'].map((kind) => stepBench(core, size, kind)));
}
