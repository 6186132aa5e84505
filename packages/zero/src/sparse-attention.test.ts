/** The section `sparse_attention`: what it resolves to, and how it reaches a model. */
import { ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { parseDeepSpeedConfig } from './config';
import { initialize } from './initialize';

const minimal = { train_batch_size: 2, optimizer: { type: 'AdamW', params: { lr: 1e-2 } } };
const section = (sparse_attention: object) => ({ ...minimal, sparse_attention });

/** Losses of three steps on rows of 32 tokens. */
async function train(config: object, model: Bloom): Promise<number[]> {
  using group = ProcessGroup.single();
  using engine = await initialize({ model, config, group });
  const losses: number[] = [];
  for (let step = 0; step < 3; step++) {
    const rows = [0, 1].map((b) => Array.from({ length: 65 }, (_, i) => (3 * i * i + 5 * i + b) % 97));
    losses.push((await engine.trainBatch(() => ({ rows }))).loss);
  }
  return losses;
}

const bloom = () => new Bloom({ ...bloomPresets['bloom-tiny']!, vocabSize: 97 });

describe('sparse_attention in a config', () => {
  it('has the defaults of its mode, "fixed" without one', () => {
    expect(parseDeepSpeedConfig(minimal, { world: 1 }).sparseAttention).toBeNull();
    expect(parseDeepSpeedConfig(section({}), { world: 1 }).sparseAttention).toEqual({
      mode: 'fixed',
      block: 16,
      different_layout_per_head: false,
      seed: 0,
      max_seq_length: null,
      num_local_blocks: 4,
      num_global_blocks: 1,
      attention: 'bidirectional',
      horizontal_global_attention: false,
      num_different_global_patterns: 1,
    });
    const given = { mode: 'variable', block: 64, local_window_blocks: [2, 8], global_block_end_indices: [3] };
    expect(parseDeepSpeedConfig(section(given), { world: 1 }).sparseAttention).toMatchObject(given);
  });

  it('trains a model by config alone, and otherwise than dense attention does', async () => {
    using dense = bloom();
    using sparse = bloom();
    using alike = bloom();
    const wanted = await train(minimal, dense);
    expect(await train(section({ mode: 'dense' }), alike)).toEqual(wanted.map((loss) => expect.closeTo(loss, 5)));
    const losses = await train(section({ mode: 'local_sliding_window', num_sliding_window_blocks: 1 }), sparse);
    expect(sparse.sparseAttention).toMatchObject({ mode: 'local_sliding_window', block: 16 });
    expect(Math.abs(losses[0]! - wanted[0]!)).toBeGreaterThan(1e-5);
    expect(losses[2]).toBeLessThan(losses[0]!);
  });

  it('learns a text as well as dense attention does, from the blocks nearby and the first one', async () => {
    // Words of three letters from a small vocabulary, each followed by one of two others.
    let state = 1;
    const next = (below: number) => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    let word = 0;
    const text = Array.from({ length: 8192 }, (_, i) => {
      if (i % 3 === 0) word = (word * 5 + 1 + 11 * next(2)) % 24;
      return 3 * word + (i % 3);
    });
    const learn = async (config: object): Promise<number> => {
      using model = new Bloom({ ...bloomPresets['bloom-tiny']!, vocabSize: 72, hiddenSize: 32, heads: 2, layers: 1 });
      using group = ProcessGroup.single();
      using engine = await initialize({ model, config, group });
      const losses: number[] = [];
      for (let step = 0; step < 60; step++) {
        const rows = [0, 1].map((b) => text.slice((step * 2 + b) * 60, (step * 2 + b) * 60 + 513));
        losses.push((await engine.trainBatch(() => ({ rows }))).loss);
      }
      expect(losses[0]! - losses.at(-1)!).toBeGreaterThan(2);
      return losses.slice(-10).reduce((sum, loss) => sum + loss / 10, 0);
    };
    const dense = await learn(minimal);
    for (const pattern of [
      { mode: 'bslongformer', num_sliding_window_blocks: 3 },
      { mode: 'fixed', num_local_blocks: 4 },
    ])
      expect((await learn(section(pattern))) - dense).toBeLessThan(0.03);
  });

  it('leaves alone what a model was set to by hand', async () => {
    using model = bloom();
    model.sparseAttention = { mode: 'bigbird', num_random_blocks: 0 };
    await train(minimal, model);
    expect(model.sparseAttention).toMatchObject({ mode: 'bigbird' });
  });

  it('is refused for a model that does not know it', async () => {
    using model = bloom();
    const { units, uses } = model;
    const plain = { units, uses, loss: model.loss.bind(model) };
    using group = ProcessGroup.single();
    await expect(initialize({ model: plain, config: section({}), group })).rejects.toThrow(
      /expected a model that can attend by blocks, got sparse_attention \(mode fixed\)/,
    );
  });

  it('says before training which sequences it takes', async () => {
    using model = bloom();
    await expect(train(section({ mode: 'dense', block: 128 }), model)).rejects.toThrow(
      /a multiple of 128, got 64 tokens/,
    );
  });
});
