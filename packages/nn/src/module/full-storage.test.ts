/** A model held whole: the parameters are slices of one buffer a unit, and nothing is left behind. */
import { liveTensors, packNumbers, unpackNumbers } from '@ds/core-native';
import { bloomPresets } from '../models/bloom/config';
import { Bloom } from '../models/bloom/model';
import { holdFull } from './full-storage';

const config = { ...bloomPresets['bloom-tiny']!, vocabSize: 9, hiddenSize: 6, heads: 3 };

describe('a model held whole', () => {
  it('keeps the parameters of a unit back to back in their order', async () => {
    using storage = holdFull(new Bloom(config));
    const norm = storage.buffers.find(({ unit }) => unit.name === 'ln_f')!;
    storage.write('ln_f.weight', [1, 2, 3, 4, 5, 6]);
    storage.write('ln_f.bias', [7, 8, 9, 10, 11, 12]);
    expect([...(await norm.data.numbers())]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  });

  it.each(['f32', 'bf16', 'f16'] as const)(
    'takes packed f32, bf16 and f16 pieces into %s, rounded once',
    async (dtype) => {
      using storage = holdFull(new Bloom(config), { dtype });
      const values = [0.1, -2.7, 65000, 1e-3, 0, -0.333];
      for (const from of ['f32', 'bf16', 'f16'] as const) {
        const packed = packNumbers(from, values);
        const size = packed.BYTES_PER_ELEMENT;
        const bytes = new Uint8Array(packed.buffer);
        storage.writePacked('ln_f.weight', from, bytes.subarray(4 * size), 4);
        storage.writePacked('ln_f.weight', from, bytes.subarray(0, 4 * size));
        const rounded = unpack(dtype, packNumbers(dtype, unpack(from, packed)));
        expect([...(await storage.parameter('ln_f.weight').value.numbers())]).toEqual(rounded);
      }
    },
  );

  it('refuses a name the model does not have, and elements outside a parameter', () => {
    using storage = holdFull(new Bloom(config));
    expect(() => storage.write('ln_f.wieght', [])).toThrow(expect.objectContaining({ code: 'FORMAT' }));
    expect(() => storage.write('ln_f.weight', [1])).toThrow(expect.objectContaining({ code: 'SHAPE' }));
    expect(() => storage.writePacked('ln_f.weight', 'f32', new Uint8Array(8), 5)).toThrow(
      /elements within the 6 of \[6\]/,
    );
    expect(() => storage.writePacked('ln_f.weight', 'f32', new Uint8Array(7))).toThrow(/7 bytes of f32/);
  });

  it('refuses a model that somebody holds already, and gives it back whole', () => {
    const before = liveTensors();
    const model = new Bloom(config);
    const storage = holdFull(model, { gradients: true });
    expect(() => holdFull(model)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    expect(model.parameters.every(({ data, grad }) => data && grad)).toBe(true);
    storage[Symbol.dispose]();
    storage[Symbol.dispose]();
    expect(model.parameters.some(({ data, grad }) => data || grad)).toBe(false);
    expect(() => model.parameters[0]!.value).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    expect(liveTensors()).toBe(before);
  });
});

function unpack(dtype: 'f32' | 'bf16' | 'f16', packed: ArrayLike<number>): number[] {
  return Array.from(unpackNumbers(dtype, packed as never));
}
