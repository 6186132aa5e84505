/** ds train, run as scripts run it: golden losses, equal stages, resume, stop, and the folder it leaves. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { cudaDevices } from '@ds/core-native';
import { openModelFolder } from '@ds/io';
import { goldenPath, readGolden, readGoldenTensors } from '../../../../test/support/golden';
import { type SpawnOptions, spawnDs } from '../../test-support/spawn-ds';
import { readRun } from '../report/read-run';
import type { StepRecord } from './records';

const folder = mkdtempSync(path.join(tmpdir(), 'ds-train-'));
afterAll(() => rmSync(folder, { recursive: true }));

const { train: golden } = readGolden('bloom-tiny');
const adamW = { type: 'AdamW', params: { lr: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1 } };
const rows = path.join(folder, 'rows.json');
writeFileSync(rows, JSON.stringify({ ids: golden.input_ids }));

let runs = 0;

interface Trained {
  readonly exitCode: number;
  readonly steps: readonly StepRecord[];
  readonly error: { code: string; message: string; hint: string } | undefined;
  readonly stderr: string;
  readonly output: string;
}

/** Trains bloom-tiny from its golden weights, `config` over the usual one. */
async function train(
  config: Record<string, unknown> = {},
  {
    args = [],
    output = path.join(folder, `run-${++runs}`),
    ...options
  }: SpawnOptions & { args?: string[]; output?: string } = {},
): Promise<Trained> {
  const file = `${output}.json`;
  const { deepspeed, ...rest } = config;
  writeFileSync(
    file,
    JSON.stringify({
      model: goldenPath('bloom-tiny'),
      data: rows,
      steps: 5,
      output,
      deepspeed: { train_batch_size: 4, optimizer: adamW, ...(deepspeed as object) },
      ...rest,
    }),
  );
  const { stdout, stderr, exitCode } = await spawnDs(['train', file, '--json', ...args], options);
  const lines = stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
  const error = lines.find((line) => 'error' in line)?.error;
  return { exitCode, steps: lines.filter((line) => 'loss' in line), error, stderr, output };
}

const losses = ({ steps }: Trained) => steps.map(({ loss }) => loss);
const stage = (n: number) => ({ deepspeed: { zero_optimization: { stage: n } } });

describe('ds train', () => {
  let first: Trained;

  beforeAll(async () => {
    first = await train();
  });

  it('gives the golden losses and gradient norms, before each step', () => {
    expect([first.exitCode, first.error]).toEqual([0, undefined]);
    const { losses: wanted, grad_global_l2_before_clip: norms } = golden.adamw_decay_all;
    expect(first.steps).toHaveLength(5);
    first.steps.forEach(({ step, loss, grad_norm }, i) => {
      expect(step).toBe(i + 1);
      expect(Math.abs(loss - wanted[i]!)).toBeLessThan(1e-4);
      expect(Math.abs(grad_norm - norms[i]!)).toBeLessThan(1e-4);
    });
  });

  (cudaDevices().emulated ? it : it.skip)('gives them on GPUs, one a rank, by NCCL', async () => {
    const { exitCode, error, steps, output } = await train({ device: 'cuda', world: 2, steps: 3, ...stage(3) });
    expect([exitCode, error]).toEqual([0, undefined]);
    expect(steps).toHaveLength(3);
    steps.forEach(({ loss }, i) => {
      expect(Math.abs(loss - golden.adamw_decay_all.losses[i]!)).toBeLessThan(1e-3);
    });
    expect(readRun(output).start).toMatchObject({ device: 'cuda', world: 2 });
  });

  it('prints the fields that scripts read', () => {
    for (const line of first.steps)
      expect(line).toMatchObject({
        lr: 1e-3,
        tokens_per_second: expect.any(Number),
        bytes_sent: 0,
        model_state_bytes: expect.any(Number),
        peak_bytes: expect.any(Number),
        rank: 0,
        skipped: false,
      });
  });

  it('holds what was planned, to the byte, and says so', () => {
    const { start, steps, timelines, end } = readRun(first.output);
    expect(start).toMatchObject({ world: 1, stage: 0, parameters: 132_992, sequence_length: 31, resumed_from: 0 });
    const last = steps.at(-1)!;
    expect(last.model_state_bytes).toBe(start.planned.model_state_bytes);
    expect(last.peak_bytes).toBe(start.planned.peak_bytes);
    expect(timelines[0]!.timeline).toEqual(start.planned.timeline);
    expect(end).toMatchObject({ reason: 'done', step: 5 });
  });

  it('leaves a Hugging Face folder with the golden weights, and a report', () => {
    using model = openModelFolder(path.join(first.output, 'model'));
    expect(model.config).toMatchObject({ model_type: 'bloom', n_layer: 2, hidden_size: 64, torch_dtype: 'float32' });
    expect(model.generationConfig).toEqual({ bos_token_id: 1, eos_token_id: 2, pad_token_id: 3 });
    expect(model.hasTokenizer).toBe(true);
    const wanted = readGoldenTensors('bloom-tiny', 'trained-5-steps.safetensors');
    expect(model.weights.names.length).toBe(wanted.size);
    for (const [name, { shape, values }] of wanted) {
      const { shape: actualShape, bytes } = model.weights.tensor(name.replace(/^(?!transformer\.)/, 'transformer.'));
      expect(actualShape).toEqual(shape);
      const actual = new Float32Array(bytes.buffer);
      const far = values.filter((value, i) => !(Math.abs(value - actual[i]!) <= 1e-4)).length;
      // Adam turns the rounding noise of gradients near zero into steps of up to lr: in the key part of this bias, and in
      // one spot of a weight.
      if (!name.endsWith('query_key_value.bias')) expect(far / values.length).toBeLessThanOrEqual(0.001);
      expect(values.every((value, i) => Math.abs(value - actual[i]!) <= 5e-3)).toBe(true);
    }
    expect(readFileSync(path.join(first.output, 'report.html'), 'utf8')).toContain('ZeRO stage 0 on 1 rank');
  });

  it('gives the same bits at every stage on two ranks, and sends what the plan says', async () => {
    const stages = await Promise.all([0, 1, 2, 3].map((n) => train({ world: 2, ...stage(n) })));
    const psi = 132_992;
    stages.forEach((run, n) => {
      expect([run.exitCode, run.error]).toEqual([0, undefined]);
      expect(losses(run)).toEqual(losses(stages[0]!));
      const sent = ((n === 3 ? 3 : 2) * psi * 4) / 2;
      expect(run.steps.map(({ bytes_sent }) => bytes_sent)).toEqual([sent, sent, sent, sent, sent]);
      const { start, steps } = readRun(run.output);
      expect(start.planned.bytes_sent_per_step).toBe(sent);
      for (const { peak_bytes, model_state_bytes } of steps.at(-1)!.ranks) {
        expect(model_state_bytes).toBe(start.planned.model_state_bytes);
        expect(peak_bytes).toBe(start.planned.peak_bytes);
      }
    });
    losses(stages[0]!).forEach((loss, i) => {
      expect(Math.abs(loss - first.steps[i]!.loss)).toBeLessThan(1e-5);
    });
  });

  it('goes on from a checkpoint at another stage as if it had never stopped', async () => {
    // Seven rows in batches of four: every step sees others, and so a wrong place in the data shows.
    const ids = [...golden.input_ids, ...golden.input_ids.slice(1).map((row) => [...row].reverse())];
    const config = { model: 'bloom-tiny', data: { ids }, seed: 3, world: 2 };
    const bf16 = (n: number) => ({ deepspeed: { bf16: { enabled: true }, zero_optimization: { stage: n } } });
    const unbroken = await train({ ...config, steps: 6, ...bf16(3) });
    const again = await train({ ...config, steps: 3, ...bf16(3) });
    const resumed = await train({ ...config, steps: 6, ...bf16(1), resume: true }, { output: again.output });
    expect(unbroken.error ?? again.error ?? resumed.error).toBeUndefined();
    expect([...losses(again), ...losses(resumed)]).toEqual(losses(unbroken));
    expect(resumed.steps.map(({ step }) => step)).toEqual([4, 5, 6]);
    const weights = ({ output }: Trained) => readFileSync(path.join(output, 'model', 'model.safetensors'));
    expect(weights(resumed).equals(weights(unbroken))).toBe(true);
    expect(readRun(again.output).steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('ends in order at Ctrl-C: with the step, a checkpoint, and exit code 0', async () => {
    let asked = false;
    const run = await train(
      { steps: 100_000, world: 2 },
      {
        onLine: (line, pid) => {
          if (asked || JSON.parse(line).step < 2) return;
          asked = true;
          process.kill(pid, 'SIGINT');
          // npm and a terminal send it twice; that is still one Ctrl-C.
          process.kill(pid, 'SIGINT');
        },
      },
    );
    expect([run.exitCode, run.error]).toEqual([0, undefined]);
    const last = run.steps.at(-1)!.step;
    expect(existsSync(path.join(run.output, 'checkpoints', `step-${last}`, 'checkpoint.json'))).toBe(true);
    expect(existsSync(path.join(run.output, 'model'))).toBe(false);
    expect(readRun(run.output).end).toMatchObject({ reason: 'stopped', step: last, model: null });
    expect(run.stderr).toContain('--resume goes on from there');
  });

  it('evaluates on what was held out', async () => {
    const run = await train({
      validation_split: 0.25,
      eval_interval: 2,
      eval_batches: 1,
      deepspeed: { train_batch_size: 1 },
    });
    const { validations } = readRun(run.output);
    expect(validations.map(({ step }) => step)).toEqual([2, 4, 5]);
    // The row that was held out is the last one; the weights have not seen it.
    expect(validations.every(({ loss }) => loss > 5 && loss < 9)).toBe(true);
  });
});

describe('ds train with sparse attention', () => {
  const ids = path.join(folder, 'whole-blocks.json');
  const rows = [0, 1, 2, 3].map((b) => Array.from({ length: 49 }, (_, i) => 4 + ((i * i + 7 * b) % 500)));
  writeFileSync(ids, JSON.stringify({ ids: rows }));

  it('trains by one section of the config, as planned to the byte', async () => {
    const sparse_attention = { mode: 'local_sliding_window', num_sliding_window_blocks: 1 };
    const dense = await train({ data: ids, steps: 2 });
    const sparse = await train({ data: ids, steps: 2, deepspeed: { sparse_attention } });
    expect([sparse.exitCode, sparse.error]).toEqual([0, undefined]);
    expect(Math.abs(losses(sparse)[0]! - losses(dense)[0]!)).toBeGreaterThan(1e-4);
    expect(sparse.steps.at(-1)!.peak_bytes).toBe(readRun(sparse.output).start.planned.peak_bytes);
  });

  it('says which sequences it takes', async () => {
    const { exitCode, error } = await train({ deepspeed: { sparse_attention: { mode: 'fixed' } } });
    expect(exitCode).not.toBe(0);
    expect(error!.message).toContain('a sequence of whole blocks, a multiple of 16, got 31 tokens');
  });
});

describe('ds train refuses', () => {
  it.each([
    ['a config with a wrong key', { stepz: 1 }, 2, 'CONFIG', /stepz: expected a key of the train config/],
    ['data that is not there', { data: '/nowhere' }, 2, 'CONFIG', /taken from the working directory/],
    ['ids outside the vocabulary', { data: { ids: [[5, 600]] } }, 1, 'FORMAT', /equal rows of token ids/],
    ['a resume without a checkpoint', { resume: true }, 1, 'CHECKPOINT', /"auto"/],
    ['a length that the rows do not have', { sequence_length: 16 }, 2, 'CONFIG', /Leave sequence_length out/],
    ['a model that is no preset', { model: 'bloom-9b' }, 2, 'CONFIG', /Presets: bloom/],
  ])('%s', async (_, config, exitCode, code, hint) => {
    const run = await train(config);
    expect([run.exitCode, run.error?.code]).toEqual([exitCode, code]);
    expect(run.error!.hint).toMatch(hint);
    expect(run.steps).toEqual([]);
  });

  it('weights of another shape, naming the tensor', async () => {
    const other = path.join(folder, 'other');
    const { mkdirSync, copyFileSync } = await import('node:fs');
    mkdirSync(other);
    copyFileSync(goldenPath('bloom-tiny', 'model.safetensors'), path.join(other, 'model.safetensors'));
    const config = JSON.parse(readFileSync(goldenPath('bloom-tiny', 'config.json'), 'utf8'));
    writeFileSync(path.join(other, 'config.json'), JSON.stringify({ ...config, vocab_size: 500 }));
    const run = await train({ model: other });
    expect([run.exitCode, run.error?.code]).toEqual([1, 'SHAPE']);
    expect(run.error!.message).toContain('[500, 64] for transformer.word_embeddings.weight, got [512, 64]');
  });
});
