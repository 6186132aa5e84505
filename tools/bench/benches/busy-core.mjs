/**
 * No spin collapse: a training step while another process keeps one core busy, beside the same step alone. What the other
 * process takes is taken from its own clock; the step may slow by that share of the machine and 15 % more.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { cpuSecondsOf } from '../machine.mjs';
import { ProcessSide } from '../process-side.mjs';
import { median } from '../statistics.mjs';

const program = fileURLToPath(new URL('../step-side.mjs', import.meta.url));
const sizes = { hiddenSize: 256, layers: 4, heads: 8, vocabSize: 8192, length: 256, batch: 8 };
const ALLOWED = 0.15;

export function benches({ core }) {
  const name = 'busy-core/step/tiny';
  const threads = core.threads();
  const make = async () => {
    const step = new ProcessSide('step', [process.execPath, program], {
      prepare: { sizes, threads, bf16: false },
      env: { DS_NUM_THREADS: String(threads) },
    });
    const taken = [];
    const beside = {
      name: 'ours beside a busy process',
      start: () => step.start(),
      async run(iterations) {
        const hog = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
        const start = { at: performance.now(), cpu: cpuSecondsOf(hog.pid) };
        try {
          const seconds = await step.run(iterations);
          const elapsed = (performance.now() - start.at) / 1000;
          taken.push((cpuSecondsOf(hog.pid) - start.cpu) / elapsed / threads);
          return seconds;
        } finally {
          hog.kill('SIGKILL');
        }
      },
      facts: async () => {
        const middle = median(taken);
        // As fast as alone on what is left of the machine, and 15 % more time.
        return {
          share_taken: Number(middle.toFixed(3)),
          least_ratio: Number(((1 - middle) / (1 + ALLOWED)).toFixed(3)),
        };
      },
      stop: () => step.stop(),
    };
    return {
      name,
      task: `training step of BLOOM tiny, 8 x 256 tokens, ${threads} threads, one core busy with another process (rival: the same alone)`,
      ours: beside,
      rival: { name: 'ours alone', run: (iterations) => step.run(iterations) },
      amount: sizes.batch * sizes.length,
      unit: 'tokens/s',
      equal: async () => {}, // One process does both.
    };
  };
  return process.platform === 'linux' ? [{ name, make }] : [];
}
