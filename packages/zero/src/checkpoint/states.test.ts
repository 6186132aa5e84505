/** Optimizers keep different states: a checkpoint says which it has, and belongs to one that has the same. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import type { ZeroEngine } from '../engine/engine';
import { initialize } from '../initialize';
import { CheckpointReader } from './checkpoint-reader';
import { loadCheckpoint } from './load';
import { saveCheckpoint } from './save';

const sizes = { hiddenSize: 16, heads: 2, layers: 1, vocabSize: 31 };

async function withEngine(type: string, fn: (engine: ZeroEngine) => Promise<void>): Promise<void> {
  using model = new Bloom({ ...bloomPresets['bloom-tiny']!, ...sizes });
  using group = ProcessGroup.single();
  using engine = await initialize({ model, group, config: { train_batch_size: 1, optimizer: { type } } });
  await engine.trainBatch(() => ({ rows: [[1, 2, 3, 4, 5]] }));
  await fn(engine);
}

describe('the states of a checkpoint', () => {
  let dir: string;
  beforeAll(async () => {
    dir = mkdtempSync(path.join(tmpdir(), 'ds-states-'));
    for (const type of ['AdamW', 'Lamb', 'Lion']) await withEngine(type, (engine) => saveCheckpoint(engine, dir, type));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('are those of its optimizer', () => {
    const statesIn = (tag: string) => {
      using reader = CheckpointReader.open(dir, tag);
      return reader.states;
    };
    expect(statesIn('AdamW')).toEqual(['fp32', 'exp_avg', 'exp_avg_sq']);
    expect(statesIn('Lamb')).toEqual(['fp32', 'exp_avg', 'exp_avg_sq']);
    expect(statesIn('Lion')).toEqual(['fp32', 'exp_avg']);
  });

  it('must be those of the engine that loads it', async () => {
    await withEngine('Lion', async (engine) => {
      await expect(loadCheckpoint(engine, dir, 'AdamW')).rejects.toThrow(
        'expected the states of Lion: fp32, exp_avg, got fp32, exp_avg, exp_avg_sq. another optimizer saved them',
      );
      await loadCheckpoint(engine, dir, 'Lion');
    });
    await withEngine('AdamW', async (engine) => {
      await expect(loadCheckpoint(engine, dir, 'Lion')).rejects.toThrow('got fp32, exp_avg.');
      await loadCheckpoint(engine, dir, 'Lamb');
    });
  });

  it('are all three where the checkpoint does not say it, and known ones where it does', () => {
    const file = path.join(dir, 'AdamW', 'checkpoint.json');
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    const rewrite = (states: unknown) => writeFileSync(file, JSON.stringify({ ...manifest, states }));
    rewrite(undefined);
    {
      using reader = CheckpointReader.open(dir, 'AdamW');
      expect(reader.states).toHaveLength(3);
    }
    rewrite(['fp32', 'momentum']);
    expect(() => CheckpointReader.open(dir, 'AdamW')).toThrow('a checkpoint of format');
    rewrite(manifest.states);
  });
});
