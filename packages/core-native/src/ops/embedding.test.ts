import { Random } from '../../csrc/kernels/common/cases';
import { device } from '../device';
import { Tensor } from '../tensor/tensor';
import { fill } from './elementwise';
import { embedding, embeddingBackward } from './embedding';

const makeIds = (ids: number[], name: 'cpu' | 'ref' = 'cpu'): Tensor =>
  Tensor.from(ids, [ids.length], { dtype: 'i32', device: name });

describe('embedding', () => {
  it('takes ids of any shape', async () => {
    const table = Tensor.from([0, 1, 10, 11, 20, 21], [3, 2]);
    const y = embedding(Tensor.from([2, 0, 1, 2], [2, 2], { dtype: 'i32' }), table);
    expect(y.shape).toEqual([2, 2, 2]);
    expect([...(await y.numbers())]).toEqual([20, 21, 0, 1, 10, 11, 20, 21]);
  });

  it.each(['cpu', 'ref'] as const)(
    'names an id that is not in the table, before it writes anything (%s)',
    async (name) => {
      const table = Tensor.from([1, 2, 3, 4], [2, 2], { device: name });
      for (const bad of [2, -1, 2 ** 31 - 1]) {
        embedding(makeIds([0, 1, bad], name), table);
        await expect(device(name).stream.join()).rejects.toThrow(
          `embedding: expected ids from 0 to 1 (V = 2), got ${bad} at position 2`,
        );
        embeddingBackward(Tensor.empty([3, 2], { device: name }), makeIds([0, 1, bad], name), table, false);
        await expect(device(name).stream.join()).rejects.toThrow(`embedding_backward: expected ids from 0 to 1`);
      }
      expect([...(await table.numbers())]).toEqual([1, 2, 3, 4]);
    },
  );

  it('refuses shapes and dtypes that do not fit', () => {
    const table = Tensor.empty([5, 3]);
    expect(() => embedding(Tensor.empty([2]), table)).toThrow('embedding: expected i32 for ids, got f32');
    expect(() => embedding(makeIds([1]), Tensor.empty([5]))).toThrow('[*, *] for table, got [5]');
    expect(() => embeddingBackward(Tensor.empty([2, 4]), makeIds([1, 2]), table, false)).toThrow('[2, 3] for dy');
  });
});

describe('embeddingBackward', () => {
  it('adds the gradients of one id in f32, in the order of their positions', async () => {
    const [R, V, C] = [600, 7, 5];
    const random = new Random(3);
    const ids = Array.from({ length: R }, () => random.integer(V));
    const dy = Float32Array.from({ length: R * C }, () => random.normal() * 10 ** random.integer(6));
    const expected = new Float32Array(V * C);
    for (let r = 0; r < R; r++)
      for (let c = 0; c < C; c++) expected[ids[r]! * C + c] = expected[ids[r]! * C + c]! + dy[r * C + c]!;
    const dtable = embeddingBackward(Tensor.from(dy, [R, C]), makeIds(ids), Tensor.empty([V, C]), false);
    expect(await dtable.read()).toEqual(expected);
  });

  it('sorts vocabularies beyond two digits of the sort', async () => {
    const V = 5_000_011;
    const ids = [V - 1, 0, 4_194_304, 2048, V - 1, 2047, 4_194_303, 0];
    const dy = Tensor.from([1, 2, 3, 4, 5, 6, 7, 8], [8, 1]);
    const dtable = await embeddingBackward(dy, makeIds(ids), fill(Tensor.empty([V, 1]), 9), false).read<'f32'>();
    const nonzero: Record<number, number> = {};
    dtable.forEach((x, v) => {
      if (x !== 0) nonzero[v] = x;
    });
    expect(nonzero).toEqual({ 0: 10, 2047: 6, 2048: 4, 4194303: 7, 4194304: 3, [V - 1]: 6 });
  });

  it('zeroes the rows that no id names, or leaves them alone when it accumulates', async () => {
    const dy = Tensor.from([1, 2, 3, 4], [2, 2]);
    const start = [Number.NaN, 1, 2, 3, 4, 5, 6, 7];
    for (const name of ['cpu', 'ref'] as const) {
      const on = { device: name };
      const ids = makeIds([2, 2], name);
      const [a, b] = [Tensor.from(start, [4, 2], on), Tensor.from(start, [4, 2], on)];
      const gradient = Tensor.from(await dy.numbers(), [2, 2], on);
      embeddingBackward(gradient, ids, a, false);
      embeddingBackward(gradient, ids, b, true);
      expect([...(await a.numbers())]).toEqual([0, 0, 0, 0, 4, 6, 0, 0]);
      expect([...(await b.numbers())]).toEqual([Number.NaN, 1, 2, 3, 8, 11, 6, 7]);
    }
  });

  it('sums 16-bit gradients into an f32 table, rounding nothing on the way', async () => {
    const R = 300;
    const dy = Tensor.from(new Float32Array(R).fill(1), [R, 1], { dtype: 'bf16' });
    const dtable = embeddingBackward(dy, makeIds(new Array(R).fill(1)), Tensor.empty([3, 1]), false);
    expect([...(await dtable.numbers())]).toEqual([0, 300, 0]); // bf16 would stop at 256
  });
});
