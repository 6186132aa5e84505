/**
 * Gradients of a whole small BLOOM: those of `ref` in f64 against finite differences, those of `cpu` against `ref`, with
 * padding, targets that do not count, dropout, and the residual on either side of the norm.
 */
import { type DeviceName, type DType, scope, Tensor } from '@ds/core-native';
import { norm } from '../../../../../test/support/golden-bloom';
import { Tape } from '../../autograd/tape';
import { type FullStorage, holdFull } from '../../module/full-storage';
import { type BloomConfig, bloomPresets } from './config';
import { Bloom } from './model';

// The plain loops of `ref` are slow where other work shares the machine.
jest.setTimeout(60_000);

const config: BloomConfig = { ...bloomPresets['bloom-tiny']!, vocabSize: 11, hiddenSize: 12, layers: 2, heads: 3 };
const variants: [string, Partial<BloomConfig>][] = [
  ['as released', {}],
  ['with the residual behind the norm', { residualAfterNorm: true }],
  ['with dropout', { hiddenDropout: 0.2, attentionDropout: 0.3 }],
  [
    'with dropout and the residual behind the norm',
    { residualAfterNorm: true, hiddenDropout: 0.4, attentionDropout: 0.1 },
  ],
];

const ids = [3, 1, 4, 1, 5, 9, 0, 0, 2, 6, 5, 3];
const mask = [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1];
const targets = [1, 4, 1, 5, 9, -100, -100, -100, 6, 5, 3, 10];

/** Numbers that look random and are always the same, around the mean that LayerNorm weights have. */
function firstValues(name: string, numel: number): Float64Array {
  const isNormWeight = /(layernorm|ln_f)\.weight$/.test(name);
  let state = [...name].reduce((hash, c) => (Math.imul(hash, 31) + c.charCodeAt(0)) >>> 0, 7);
  return Float64Array.from({ length: numel }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 1.2 + (isNormWeight ? 1 : 0);
  });
}

function hold(model: Bloom, device: DeviceName, dtype: DType): FullStorage {
  const storage = holdFull(model, { device, dtype, gradients: true });
  for (const { name, numel } of model.parameters) storage.write(name, firstValues(name, numel));
  return storage;
}

/** Queues the losses of the batch; with a tape, and then its way back. */
function losses(model: Bloom, device: DeviceName, tape?: Tape): Tensor {
  return scope(() => {
    const tensor = (values: number[], dtype: DType) => Tensor.from(values, [2, 6], { dtype, device });
    const batch = {
      ids: tensor(ids, 'i32'),
      targets: tensor(targets, 'i32'),
      mask: tensor(mask, 'u8'),
      scale: 1 / 8,
      dropoutSeed: 5,
    };
    if (!tape) return model.loss(batch);
    const out = tape.run(() => model.loss(batch));
    tape.backward(out);
    return out;
  });
}

async function gradients(model: Bloom, device: DeviceName, dtype: DType): Promise<Map<string, Float64Array>> {
  using storage = hold(model, device, dtype);
  using tape = new Tape();
  losses(model, device, tape).dispose();
  const result = new Map<string, Float64Array>();
  for (const [name, { grad }] of storage.parameters) result.set(name, await grad!.numbers());
  return result;
}

describe.each(variants)('the gradients of a BLOOM %s', (_, changes) => {
  const model = new Bloom({ ...config, ...changes });
  afterAll(() => model[Symbol.dispose]());

  it('are what finite differences say', async () => {
    const exact = await gradients(model, 'ref', 'f64');
    using storage = hold(model, 'ref', 'f64');
    const step = 1e-5;
    for (const { name, value, numel } of model.parameters) {
      const values = firstValues(name, numel);
      const lossAt = async (i: number, delta: number): Promise<number> => {
        value.write(values.map((x, j) => (i === j ? x + delta : x)));
        using out = losses(model, 'ref');
        return (await out.numbers()).reduce((a, b) => a + b, 0) / 8;
      };
      const gradient = exact.get(name)!;
      const largest = Math.max(1e-2, ...gradient.map(Math.abs));
      // Every element of the small ones, a spread of the large ones.
      for (let i = 0; i < numel; i += Math.ceil(numel / 12)) {
        const difference = ((await lossAt(i, step)) - (await lossAt(i, -step))) / (2 * step);
        if (!(Math.abs(difference - gradient[i]!) < 1e-6 * largest))
          throw new Error(`d${name}[${i}] is ${gradient[i]}, finite differences say ${difference}`);
      }
      storage.write(name, values);
    }
  });

  it('are the same on cpu', async () => {
    const exact = await gradients(model, 'ref', 'f64');
    for (const [name, values] of await gradients(model, 'cpu', 'f32')) {
      const wanted = exact.get(name)!;
      const difference = norm(values.map((value, i) => value - wanted[i]!));
      expect(difference).toBeLessThan(2e-6 * norm(wanted) + 1e-7);
    }
  });
});
