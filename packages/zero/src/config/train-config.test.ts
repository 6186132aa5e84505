import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConfigError } from './config-error';
import { loadTrainConfig, parseTrainConfig } from './train-config';

const deepspeed = { train_batch_size: 8, optimizer: { type: 'AdamW', params: { lr: 1e-4 } } };
const minimal = { model: 'bloom-tiny', data: 'corpus', steps: 10, deepspeed };

const folder = mkdtempSync(join(tmpdir(), 'ds-train-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('a train config', () => {
  it('has these defaults', () => {
    const { deepspeed: inner, ...rest } = parseTrainConfig(minimal);
    expect(rest).toEqual({
      model: 'bloom-tiny',
      data: 'corpus',
      steps: 10,
      world: 1,
      device: 'cpu',
      seed: 42,
      output: 'runs/train',
      sequenceLength: null,
      tokenizer: null,
      validationSplit: 0,
      evalInterval: null,
      evalBatches: 8,
      checkpointInterval: null,
      resume: false,
      weightDecayGroups: 'all',
    });
    expect(inner).toMatchObject({ world: 1, seed: 42, batch: { global: 8, micro: 8, accumulation: 1 } });
  });

  it('reads every key', () => {
    const { deepspeed: inner, ...rest } = parseTrainConfig({
      model: { model_type: 'bloom', n_layer: 2 },
      data: ['a.txt', 'b.txt'],
      steps: 100,
      world: 2,
      device: 'cuda',
      seed: 7,
      output: 'out',
      deepspeed: { ...deepspeed, scheduler: { type: 'WarmupCosineLR', params: { warmup_num_steps: 5 } } },
      sequence_length: 128,
      tokenizer: 'tokenizer.json',
      validation_split: 0.1,
      eval_interval: 20,
      eval_batches: 4,
      checkpoint_interval: 50,
      resume: 'auto',
      weight_decay_groups: 'matrices',
    });
    expect(rest).toEqual({
      model: { model_type: 'bloom', n_layer: 2 },
      data: ['a.txt', 'b.txt'],
      steps: 100,
      world: 2,
      device: 'cuda',
      seed: 7,
      output: 'out',
      sequenceLength: 128,
      tokenizer: 'tokenizer.json',
      validationSplit: 0.1,
      evalInterval: 20,
      evalBatches: 4,
      checkpointInterval: 50,
      resume: 'auto',
      weightDecayGroups: 'matrices',
    });
    expect(inner).toMatchObject({ world: 2, seed: 7, batch: { micro: 4 }, scheduler: { totalSteps: 100 } });
  });

  it('takes rows of token ids in place', () => {
    const data = {
      ids: [
        [1, 2, 3],
        [4, 5],
      ],
    };
    const config = parseTrainConfig({ ...minimal, data });
    expect(config.data).toEqual(data);
    expect(Object.isFrozen((config.data as typeof data).ids[0])).toBe(true);
  });

  it('takes the seed of the DeepSpeed config where it has none of its own', () => {
    const config = parseTrainConfig({ ...minimal, deepspeed: { ...deepspeed, seed: 5 } });
    expect([config.seed, config.deepspeed.seed]).toEqual([5, 5]);
  });

  it('takes null for what may be absent', () => {
    const nulls = { sequence_length: null, tokenizer: null, eval_interval: null, checkpoint_interval: null };
    expect(parseTrainConfig({ ...minimal, ...nulls })).toEqual(parseTrainConfig(minimal));
  });

  it('reads a DeepSpeed config from its own file, and names that file', () => {
    const path = join(folder, 'ds.json');
    writeFileSync(path, JSON.stringify(deepspeed));
    expect(parseTrainConfig({ ...minimal, world: 4, deepspeed: path }).deepspeed.batch.micro).toBe(2);
    writeFileSync(path, JSON.stringify({ ...deepspeed, bf17: {} }));
    const train = join(folder, 'train.json');
    writeFileSync(train, JSON.stringify({ ...minimal, deepspeed: path, stepz: 1 }, null, 2));
    let problems: ConfigError['problems'] = [];
    try {
      loadTrainConfig(train);
    } catch (error) {
      problems = (error as ConfigError).problems;
    }
    expect(problems.map((problem) => [problem.file, problem.line, problem.path, problem.nearest])).toEqual([
      [path, 1, 'bf17', 'bf16'],
      [train, 6, 'stepz', 'steps'],
    ]);
  });
});

describe('the command line', () => {
  it('is taken over the file', () => {
    const given = { ...minimal, deepspeed: { ...deepspeed, seed: 5 }, seed: 5, world: 2 };
    const config = parseTrainConfig(given, {
      overrides: { steps: 3, world: 4, device: 'cuda', seed: 9, output: 'x', resume: true },
    });
    expect(config).toMatchObject({ steps: 3, world: 4, device: 'cuda', seed: 9, output: 'x', resume: true });
    expect(config.deepspeed).toMatchObject({ world: 4, seed: 9, batch: { micro: 2 } });
  });

  it('leaves alone what it does not set', () => {
    expect(parseTrainConfig(minimal, { overrides: { steps: undefined } }).steps).toBe(10);
  });

  it('is checked by the same rules, and named', () => {
    expect(() => parseTrainConfig(minimal, { overrides: { steps: 0.5 } })).toThrow(
      'command line steps: expected an integer ≥ 1, got 0.5.',
    );
  });
});
