import { blockDds, blockDsd, blockSdd } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';
import { type Drawing, drawn, layoutOf } from './cases';

interface Product extends Drawing {
  B: number;
  K: number;
  dtype: OpCase['dtype'];
}

/** Each as op, first operand, second operand; whether they lie by tokens as rows without a flag, or are sparse. */
const products = {
  block_sdd: ['tokens', 'features'],
  block_dsd: ['sparse', 'tokens'],
  block_dds: ['features', 'sparse'],
} as const;

type Name = keyof typeof products;

/** A case for each way to transpose the operands. */
function shapes(op: Name, product: Product, bench = false): OpCase[] {
  const { B, K, dtype, ...drawing } = product;
  const { heads: H, block, blocks, pattern } = drawing;
  const T = blocks * block;
  const Z = layoutOf(drawn(drawing)).nonzeroBlocks;
  const shapeOf = (lies: 'tokens' | 'features' | 'sparse', transposed: boolean): number[] => {
    if (lies === 'sparse') return [B, Z, block, block];
    return (lies === 'tokens') !== transposed ? [B, H, T, K] : [B, H, K, T];
  };
  return [0, 1, 2, 3].map((ways) => {
    const [first, second] = [ways % 2 === 1, ways >= 2];
    return {
      name: `B ${B} T ${blocks} x ${block} H ${H} K ${K} ${dtype}, ${pattern}${first ? ', first transposed' : ''}${second ? ', second transposed' : ''}`,
      dtype,
      inputs: {
        first: { shape: shapeOf(products[op][0], first) },
        second: { shape: shapeOf(products[op][1], second) },
      },
      parameters: { ...drawn(drawing), B, K, first, second },
      ...(bench ? { bench: true } : {}),
    };
  });
}

function casesOf(op: Name): OpCase[] {
  const base = { B: 1, K: 3, dtype: 'f32', heads: 1, block: 16, blocks: 2, layouts: 1, pattern: 'random' } as const;
  return [
    // Small enough for finite differences.
    shapes(op, { ...base, blocks: 1, K: 4, pattern: 'all' }),
    shapes(op, { ...base, B: 0 }),
    shapes(op, { ...base, K: 0 }),
    shapes(op, { ...base, pattern: 'none' }),
    shapes(op, { ...base, B: 2, heads: 3, layouts: 2, blocks: 5, K: 17 }),
    shapes(op, { ...base, blocks: 7, pattern: 'holes', K: 33 }),
    shapes(op, { ...base, block: 32, blocks: 4, K: 80, pattern: 'window' }),
    shapes(op, { ...base, block: 128, blocks: 2, K: 20 }),
    shapes(op, { ...base, block: 64, blocks: 3, K: 24, dtype: 'bf16', pattern: 'globals' }),
    shapes(op, { ...base, blocks: 6, heads: 2, K: 40, dtype: 'f16', pattern: 'globals' }),
    shapes(op, { ...base, block: 64, blocks: 32, heads: 8, K: 64, pattern: 'window' }, true).slice(0, 1),
  ].flat();
}

function spec(op: Name, run: OpCases['run'], backward: NonNullable<OpCases['backward']>['run']): OpCases {
  const isSdd = op === 'block_sdd';
  return {
    op,
    cases: casesOf(op),
    run,
    backward: { outputs: ['out'], run: backward },
    sumLength: (c) => {
      const { K, block, blocks } = c.parameters as Record<string, number>;
      return Math.max(1, isSdd ? K! : blocks! * block!);
    },
    bytes: (c) => bytesOf(c),
    flops: (c) => {
      const { B, K, block } = c.parameters as Record<string, number>;
      return B! * layoutOf(c.parameters).nonzeroBlocks * block! ** 2 * 2 * K!;
    },
  };
}

/** Both dense matrices, and the blocks. */
function bytesOf(c: OpCase): number {
  const { B, K, heads, block, blocks } = c.parameters as Record<string, number>;
  const elements = B! * (layoutOf(c.parameters).nonzeroBlocks * block! ** 2 + 2 * heads! * blocks! * block! * K!);
  return elements * (c.dtype === 'f32' ? 4 : 2);
}

// The gradient of each product is the two others, so that every flag is used here too. With a = op(first), b = op(second):
// s = a b gives da = ds b^T and db = a^T ds on the blocks; a stored transposed has its gradient transposed.
export const blockSddCases = spec(
  'block_sdd',
  ({ first, second }, p) => ({
    out: blockSdd(first!, second!, layoutOf(p), { transposeA: p.first === true, transposeB: p.second === true }),
  }),
  ({ first, second }, _, { out: ds }, p) => {
    const layout = layoutOf(p);
    // As [T, K] the gradient of a is ds b^T; as [K, T] it is b ds^T.
    const da = p.first
      ? blockDds(second!, ds!, layout, { transposeA: p.second === true, transposeS: true })
      : blockDsd(ds!, second!, layout, { transposeB: p.second !== true });
    const db = p.second
      ? blockDsd(ds!, first!, layout, { transposeS: true, transposeB: p.first === true })
      : blockDds(first!, ds!, layout, { transposeA: p.first !== true });
    return { first: da, second: db };
  },
);

export const blockDsdCases = spec(
  'block_dsd',
  ({ first, second }, p) => ({
    out: blockDsd(first!, second!, layoutOf(p), { transposeS: p.first === true, transposeB: p.second === true }),
  }),
  ({ first, second }, _, { out: dy }, p) => {
    const layout = layoutOf(p);
    // y = s b: ds = dy b^T; of y = s^T b it is b dy^T.
    const ds = p.first
      ? blockSdd(second!, dy!, layout, { transposeA: p.second === true, transposeB: true })
      : blockSdd(dy!, second!, layout, { transposeB: p.second !== true });
    const db = p.second
      ? blockDds(dy!, first!, layout, { transposeA: true, transposeS: p.first === true })
      : blockDsd(first!, dy!, layout, { transposeS: p.first !== true });
    return { first: ds, second: db };
  },
);

export const blockDdsCases = spec(
  'block_dds',
  ({ first, second }, p) => ({
    out: blockDds(first!, second!, layoutOf(p), { transposeA: p.first === true, transposeS: p.second === true }),
  }),
  ({ first, second }, _, { out: dy }, p) => {
    const layout = layoutOf(p);
    // y = a s: ds = a^T dy; of y = a s^T it is dy^T a.
    const ds = p.second
      ? blockSdd(dy!, first!, layout, { transposeA: true, transposeB: p.first === true })
      : blockSdd(first!, dy!, layout, { transposeA: p.first !== true });
    const da = p.first
      ? blockDsd(second!, dy!, layout, { transposeS: p.second === true, transposeB: true })
      : blockDds(dy!, second!, layout, { transposeS: p.second !== true });
    return { first: da, second: ds };
  },
);
