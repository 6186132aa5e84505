import { Tensor } from '@ds/core-native';
import { extendPositionEmbedding, padToBlockSize, unpad } from './pad';

describe('padding to whole blocks', () => {
  it('brings rows to one length on the right, and says which tokens are real', () => {
    const { ids, mask, lengths } = padToBlockSize([[1, 2, 3], [4], [5, 6, 7, 8, 9]], 4, 3);
    expect(ids.map((row) => [...row])).toEqual([
      [1, 2, 3, 3, 3, 3, 3, 3],
      [4, 3, 3, 3, 3, 3, 3, 3],
      [5, 6, 7, 8, 9, 3, 3, 3],
    ]);
    expect(mask.map((row) => row.join(''))).toEqual(['11100000', '10000000', '11111000']);
    expect(lengths).toEqual([3, 1, 5]);
  });

  it('leaves whole blocks, and nothing, alone', () => {
    expect(padToBlockSize([[1, 2, 3, 4]], 4, 0).ids).toEqual([Int32Array.of(1, 2, 3, 4)]);
    expect(padToBlockSize([], 16, 0)).toEqual({ ids: [], mask: [], lengths: [] });
    expect(() => padToBlockSize([[1]], 0, 0)).toThrow('expected a block >= 1, got 0');
  });

  it('is taken off again', async () => {
    using x = Tensor.from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [2, 3, 2]);
    for (const tensor of [x, x.view([6, 2])]) {
      const parts = unpad(tensor, [2, 1]);
      expect(parts.map(({ shape }) => shape)).toEqual([
        [2, 2],
        [1, 2],
      ]);
      expect(await Promise.all(parts.map(async (part) => [...(await part.numbers())]))).toEqual([
        [0, 1, 2, 3],
        [6, 7],
      ]);
      for (const part of parts) part.dispose();
    }
    expect(() => unpad(x, [2, 4])).toThrow('expected 2 sequences of one length that none of [2, 4] exceeds');
  });
});

describe('a longer table of positions', () => {
  const table = Float32Array.of(1, 2, 3, 4, 5, 6);

  it('repeats its rows', () => {
    expect([...extendPositionEmbedding(table, { positions: 3, to: 7 })]).toEqual([
      1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2,
    ]);
  });

  it('keeps reserved rows once', () => {
    expect([...extendPositionEmbedding(table, { positions: 3, to: 6, reserved: 1 })]).toEqual([
      1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4,
    ]);
  });

  it('is no shorter', () => {
    expect(() => extendPositionEmbedding(table, { positions: 3, to: 2 })).toThrow(/at least as many rows.*to 2/s);
    expect(() => extendPositionEmbedding(table, { positions: 4, to: 8 })).toThrow('6 numbers in 4 rows');
    expect(() => extendPositionEmbedding(table, { positions: 3, to: 8, reserved: 3 })).toThrow('more than 3 reserved');
  });
});
