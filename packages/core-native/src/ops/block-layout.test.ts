/** Compiled layouts: what they count, what they refuse, and what kernels refuse of them. */
import { native } from '../loader';
import { liveTensors, Tensor } from '../tensor/tensor';
import { type BlockDrawing, BlockLayout } from './block-layout';

describe('a block layout', () => {
  it('counts its blocks, and is on a device once, until it is disposed', async () => {
    const before = liveTensors();
    const layout = new BlockLayout({
      block: 16,
      blocks: 3,
      layouts: [
        [1, 0, 0, 1, 1, 0, 0, 0, 1],
        [0, 0, 1, 0, 0, 0, 0, 0, 0],
      ],
      headLayout: [1, 0, 1],
    });
    expect([layout.tokens, layout.heads, layout.layouts, layout.nonzeroBlocks]).toEqual([48, 3, 2, 6]);
    expect([0, 1, 2].map((h) => layout.blocksOf(h))).toEqual([1, 4, 1]);
    expect(layout.density).toBeCloseTo(6 / 27, 12);
    const lists = layout.tensorsOn('cpu');
    expect(layout.tensorsOn('cpu')).toBe(lists);
    const numbers = await Promise.all(lists.map(async (tensor) => [...(await tensor.read<'i32'>())]));
    expect(numbers).toEqual([
      [1, 0, 1],
      [0, 1, 3, 4, 4, 5, 5, 5],
      [0, 0, 1, 2, 2],
      [0, 2, 3, 4, 4, 4, 4, 5],
      [0, 1, 1, 2, 0],
      [0, 1, 2, 3, 4],
    ]);
    expect(liveTensors()).toBe(before + 6);
    layout[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });

  it('refuses what cannot be compiled', () => {
    const good = { block: 16, blocks: 2, layouts: [[1, 0, 1, 1]], headLayout: [0] };
    const made = (changes: Partial<BlockDrawing>) => () => new BlockLayout({ ...good, ...changes });
    expect(made({ block: 24 })).toThrow('expected a block of 16, 32, 64, 128 tokens, got 24');
    expect(made({ layouts: [[1, 0, 1]] })).toThrow('expected 2 x 2 blocks in every layout, got 3');
    expect(made({ headLayout: [0, 1] })).toThrow('expected one of 1 layouts for head 1, got 1');
    expect(made({ headLayout: [] })).toThrow('expected at least one head, got none');
  });

  it('whose lists are damaged is refused by the kernels before anything is read by them', async () => {
    // Lists of a head, 2 x 2 blocks; each row damages one of them.
    const good = { head: [0], start: [0, 1, 3], list: [0, 0, 1], places: [0, 1, 2] };
    const damaged = [
      { head: [1] },
      { head: [-1] },
      { start: [0, 2, 1] },
      { start: [0, 1, 4] },
      { start: [-1, 1, 3] },
      { list: [0, 1, 0] },
      { list: [0, 1, 1] },
      { list: [0, 0, 2] },
      { list: [-1, 0, 1] },
      { places: [0, 1, 3] },
    ];
    for (const device of ['cpu', 'ref'] as const)
      for (const change of damaged) {
        const { head, start, list, places } = { ...good, ...change };
        const i32 = (values: number[], shape = [values.length]) => Tensor.from(values, shape, { dtype: 'i32', device });
        const qkv = Tensor.from(new Float64Array(32 * 3 * 4), [1, 32, 12], { device });
        const [out, lse] = [Tensor.empty([1, 32, 4], { device }), Tensor.empty([1, 1, 32], { device })];
        const byRows = 'places' in change ? [0, 1, 3] : start;
        // biome-ignore format: the order of the contract
        native.sparse_attention(qkv.device.stream.id, out.id, lse.id, qkv.id, i32(head).id, i32(byRows, [1, 3]).id, i32('places' in change ? [0, 0, 1] : list).id, i32([0, 1, 3], [1, 3]).id, i32([0, 0, 1]).id, i32(places).id, 16, 0, 0, 0, 1, 1, true, 0, 0, 0);
        await expect(out.read()).rejects.toThrow(/sparse_attention: expected a block layout with/);
      }
  });
});
