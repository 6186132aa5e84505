/** BLOOM with sparse attention: kin of the dense one, causal in every pattern, and with the right gradients. */
import { type DeviceName, type DType, liveTensors, scope, Tensor } from '@ds/core-native';
import { computingDevices } from '../../../../../test/support/devices';
import { norm } from '../../../../../test/support/golden-bloom';
import { Tape } from '../../autograd/tape';
import { type FullStorage, holdFull } from '../../module/full-storage';
import type { SparsityConfig } from '../../sparse/sparsity-config';
import { type BloomConfig, bloomPresets } from './config';
import { Bloom } from './model';

// The plain loops of `ref` are slow where other work shares the machine.
jest.setTimeout(240_000);

const config: BloomConfig = { ...bloomPresets['bloom-tiny']!, vocabSize: 13, hiddenSize: 12, layers: 2, heads: 3 };

/** Numbers that look random and are always the same, around the mean that LayerNorm weights have. */
function firstValues(name: string, numel: number): Float64Array {
  const mean = /(layernorm|ln_f)\.weight$/.test(name) ? 1 : 0;
  let state = [...name].reduce((hash, c) => (Math.imul(hash, 31) + c.charCodeAt(0)) >>> 0, 7);
  return Float64Array.from({ length: numel }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 1.2 + mean;
  });
}

function hold(model: Bloom, device: DeviceName, dtype: DType): FullStorage {
  const storage = holdFull(model, { device, dtype, gradients: true });
  for (const { name, numel } of model.parameters) storage.write(name, firstValues(name, numel));
  return storage;
}

function bloom(pattern: SparsityConfig | undefined, changes: Partial<BloomConfig> = {}): Bloom {
  const model = new Bloom({ ...config, ...changes });
  model.sparseAttention = pattern;
  return model;
}

const tokens = (n: number) => Array.from({ length: n }, (_, i) => (5 * i * i + 3 * i + 1) % 13);

/** Losses of two sequences of T tokens, the second with padding; on the tape also the way back. */
function losses(model: Bloom, T: number, device: DeviceName, tape?: Tape): Tensor {
  return scope(() => {
    const tensor = (values: number[], dtype: DType) => Tensor.from(values, [2, T], { dtype, device });
    const batch = {
      ids: tensor(tokens(2 * T), 'i32'),
      targets: tensor(
        tokens(2 * T).map((_, i) => (i % 5 === 2 ? -100 : (i * 7) % 13)),
        'i32',
      ),
      mask: tensor(
        tokens(2 * T).map((_, i) => Number(i < T || i % 6 !== 1)),
        'u8',
      ),
      scale: 1 / T,
      dropoutSeed: 5,
    };
    if (!tape) return model.loss(batch);
    const out = tape.run(() => model.loss(batch));
    tape.backward(out);
    return out;
  });
}

async function trained(model: Bloom, T: number, device: DeviceName, dtype: DType): Promise<Map<string, Float64Array>> {
  using storage = hold(model, device, dtype);
  using tape = new Tape();
  using out = losses(model, T, device, tape);
  const result = new Map([['losses', await out.numbers()]]);
  for (const [name, { grad }] of storage.parameters) result.set(name, await grad!.numbers());
  return result;
}

function expectNear(a: Map<string, Float64Array>, b: Map<string, Float64Array>, bound: number): void {
  expect([...a.keys()]).toEqual([...b.keys()]);
  for (const [name, values] of a) {
    const wanted = b.get(name)!;
    expect(norm(values.map((value, i) => value - wanted[i]!))).toBeLessThan(bound * norm(wanted) + 1e-7);
  }
}

const patterns: [string, SparsityConfig, number][] = [
  ['fixed', { mode: 'fixed', num_local_blocks: 2, attention: 'unidirectional' }, 96],
  [
    'fixed with wide global columns',
    { mode: 'fixed', num_local_blocks: 4, num_global_blocks: 2, attention: 'unidirectional' },
    112,
  ],
  ['fixed per head', { mode: 'fixed', different_layout_per_head: true, num_different_global_patterns: 3 }, 96],
  ['variable', { mode: 'variable', num_random_blocks: 2, local_window_blocks: [1, 3], seed: 4 }, 96],
  ['bigbird', { mode: 'bigbird', attention: 'unidirectional', different_layout_per_head: true, seed: 9 }, 112],
  ['bslongformer', { mode: 'bslongformer', global_block_indices: [0, 3] }, 96],
  ['local_sliding_window', { mode: 'local_sliding_window', block: 32 }, 128],
  ['dense', { mode: 'dense', block: 64 }, 128],
];

describe('a BLOOM with sparse attention', () => {
  it('over all blocks is the dense one, with dropout and padding', async () => {
    const changes = { attentionDropout: 0.2, hiddenDropout: 0.1 };
    using dense = bloom(undefined, changes);
    const wanted = await trained(dense, 32, 'cpu', 'f32');
    for (const block of [16, 32] as const) {
      using sparse = bloom({ mode: 'dense', block }, changes);
      expectNear(await trained(sparse, 32, 'cpu', 'f32'), wanted, 2e-6);
    }
  });

  it.each(patterns)('learns in pattern %s as the specification says', async (_, pattern, T) => {
    using model = bloom(pattern, { attentionDropout: 0.2 });
    const [cpu, exact] = [await trained(model, T, 'cpu', 'f32'), await trained(model, T, 'ref', 'f64')];
    expectNear(cpu, exact, 4e-6);
    // Products of f32 on tensor cores, in three of TF32 each, lose a bit or two; 1e-5 is what f32 attention must keep.
    if (computingDevices.includes('cuda:0')) expectNear(await trained(model, T, 'cuda:0', 'f32'), exact, 1e-5);
    using dense = bloom(undefined, { attentionDropout: 0.2 });
    const other = (await trained(dense, T, 'cpu', 'f32')).get('losses')!;
    const same = cpu.get('losses')!.every((loss, i) => Math.abs(loss - other[i]!) < 1e-5);
    expect(same).toBe(pattern.mode === 'dense');
  });

  /** Hidden states of `tokens(T)`, with one of them changed. */
  async function hiddenOf(model: Bloom, T: number, device: DeviceName, changed: number): Promise<Float64Array> {
    const ids = tokens(T);
    if (changed >= 0) ids[changed] = (ids[changed]! + 1) % 13;
    using x = scope(() => model.hidden({ ids: Tensor.from(ids, [1, T], { dtype: 'i32', device }) }));
    return x.numbers();
  }

  it.each(patterns)('never looks ahead in pattern %s', async (_, pattern, T) => {
    for (const device of computingDevices.filter((name) => name !== 'ref')) {
      using model = bloom(pattern);
      using _storage = hold(model, device, 'f32');
      const before = await hiddenOf(model, T, device, -1);
      const C = config.hiddenSize;
      for (const j of device === 'cpu' ? [1, 15, 16, 17, 40, 63, 64, T - 17, T - 1] : [16, 63, T - 17]) {
        const after = await hiddenOf(model, T, device, j);
        expect(after.subarray(0, j * C)).toEqual(before.subarray(0, j * C));
        expect(after.subarray(j * C, (j + 1) * C)).not.toEqual(before.subarray(j * C, (j + 1) * C));
      }
    }
  });

  it('has the gradients that finite differences show', async () => {
    using model = bloom({ mode: 'bigbird', attention: 'unidirectional', num_sliding_window_blocks: 1 }, { layers: 1 });
    const T = 48;
    const exact = await trained(model, T, 'ref', 'f64');
    using _storage = hold(model, 'ref', 'f64');
    const total = async (): Promise<number> => {
      using out = losses(model, T, 'ref');
      return (await out.numbers()).reduce((a, b) => a + b, 0) / T;
    };
    const step = 1e-5;
    for (const { name, value, numel } of model.parameters.filter(({ name }) => name.includes('query_key_value'))) {
      const values = firstValues(name, numel);
      const gradient = exact.get(name)!;
      const largest = Math.max(1e-2, ...gradient.map(Math.abs));
      for (let i = 0; i < numel; i += Math.ceil(numel / 8)) {
        const at = async (delta: number) => {
          value.write(values.map((x, k) => (k === i ? x + delta : x)));
          return total();
        };
        const difference = ((await at(step)) - (await at(-step))) / (2 * step);
        expect(Math.abs(difference - gradient[i]!)).toBeLessThan(1e-6 * largest);
      }
      value.write(values);
    }
  });

  it('says which lengths it takes', () => {
    using model = bloom({ mode: 'fixed' });
    using _storage = hold(model, 'cpu', 'f32');
    const ids = Tensor.from(tokens(40), [1, 40], { dtype: 'i32' });
    expect(() => scope(() => model.hidden({ ids }))).toThrow(/a multiple of 16, got 40 tokens.*padToBlockSize/s);
    ids.dispose();
    expect(() => bloom({ mode: 'fixed', block: 24 })).toThrow(
      'sparse_attention.block: expected one of 16, 32, 64, 128',
    );
  });

  it('keeps no layout behind', async () => {
    const before = liveTensors();
    const model = bloom({ mode: 'fixed', num_local_blocks: 2 });
    await trained(model, 32, 'cpu', 'f32');
    await trained(model, 64, 'cpu', 'f32');
    model.sparseAttention = { mode: 'dense' };
    await trained(model, 32, 'cpu', 'f32');
    model.sparseAttention = undefined;
    model[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });
});
