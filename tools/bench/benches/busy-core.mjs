/**
 * No spin collapse: a training step while another process keeps one core busy, beside the same step alone. What the other
 * process takes is taken from its own clock; the step may slow by that share of the machine and 15 % more.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ProcessSide } from '../process-side.mjs';

const program = fileURLToPath(new URL('../step-side.mjs', import.meta.url));
const sizes = { hiddenSize: 256, layers: 4, heads: 8, vocabSize: 8192, length: 256, batch: 8 };
const TICKS_A_SECOND = 100;
const ALLOWED = 0.15;

/** CPU seconds of a running process. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

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
        const start = { at: performance.now(), cpu: cpuSeconds(hog.pid) };
        try {
          const seconds = await step.run(iterations);
          const elapsed = (performance.now() - start.at) / 1000;
          const share = (cpuSeconds(hog.pid) - start.cpu) / elapsed / threads;
          taken.push({ share, seconds: seconds / iterations });
          return seconds;
        } finally {
          hog.kill('SIGKILL');
        }
      },
      facts: async () => {
        const middle = taken.map(({ share }) => share).sort((a, b) => a - b)[Math.floor(taken.length / 2)];
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
