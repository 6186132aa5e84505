import { alibiSlopes, sparseAttention, sparseAttentionBackward } from '@ds/core-native';
import type { OpCase, OpCases, Random, Tensors } from '../common/cases';
import { drawn, layoutOf, type Pattern, patterns } from './cases';

interface Settings {
  dtype?: OpCase['dtype'];
  pattern?: Pattern;
  /** Distinct layouts, given to the heads in turn. */
  layouts?: number;
  alibi?: boolean;
  causal?: boolean;
  padding?: 'left' | 'holes' | 'one empty';
  scale?: number;
  dropout?: number;
  /** Layers of the added bias: 1 or the number of heads. */
  added?: 'one' | 'per head';
  bench?: boolean;
}

function isReal(padding: Settings['padding'], b: number, t: number): boolean {
  if (padding === 'left') return t >= 3 + 17 * b;
  if (padding === 'one empty') return b > 0;
  return (7 * t + b) % 3 !== 0;
}

function shape(B: number, blocks: number, block: number, H: number, D: number, settings: Settings = {}): OpCase {
  const {
    dtype = 'f32',
    pattern = 'random',
    layouts = 1,
    alibi = false,
    causal = true,
    padding,
    scale,
    dropout,
  } = settings;
  const { added, bench } = settings;
  const T = blocks * block;
  const slopes = alibiSlopes(H);
  const notes = [
    `, ${pattern}`,
    layouts > 1 ? ` ${layouts} layouts` : '',
    alibi ? ', slopes' : '',
    causal ? '' : ', not causal',
    padding ? `, padding ${padding}` : '',
    added ? `, added ${added}` : '',
    dropout ? `, dropout ${dropout}` : '',
    scale ? `, scale ${scale}` : '',
  ];
  return {
    name: `B ${B} T ${blocks} x ${block} H ${H} D ${D} ${dtype}${notes.join('')}`,
    dtype,
    inputs: {
      qkv: { shape: [B, T, H * 3 * D] },
      ...(alibi ? { slopes: { shape: [H], dtype: 'f32', value: (_: Random, i: number) => slopes[i]! } } : {}),
      ...(added ? { added: { shape: [added === 'one' ? 1 : H, T, T], dtype: 'f32' } } : {}),
      ...(padding
        ? {
            mask: {
              shape: [B, T],
              dtype: 'u8',
              value: (_: Random, i: number) => Number(isReal(padding, Math.floor(i / T), i % T)),
            },
          }
        : {}),
    },
    parameters: {
      ...drawn({ heads: H, block, blocks, layouts, pattern }),
      causal,
      ...(scale ? { scale } : {}),
      ...(dropout ? { p: dropout, seed: 2 ** 40 + B, offset: 3 + T } : {}),
    },
    ...(bench ? { bench: true } : {}),
  };
}

export const sparseAttentionCases: OpCases = {
  op: 'sparse_attention',
  cases: [
    // Small enough for finite differences.
    shape(1, 2, 16, 1, 3, { pattern: 'all' }),
    shape(1, 2, 16, 1, 3, { pattern: 'window', alibi: true }),
    shape(1, 2, 16, 2, 2, { pattern: 'random', layouts: 2, causal: false }),
    shape(2, 1, 16, 1, 3, { pattern: 'all', padding: 'holes', dropout: 0.3, alibi: true }),
    shape(1, 2, 16, 1, 3, { pattern: 'holes', causal: false, scale: 0.4 }),
    shape(1, 1, 16, 1, 2, { pattern: 'all', added: 'one' }),
    // Empty.
    shape(0, 2, 16, 1, 8),
    shape(2, 0, 16, 1, 8),
    // Every pattern, block and direction: strips of several blocks, of one, and blocks of several strips.
    ...([16, 32, 64, 128] as const).flatMap((block) =>
      patterns.flatMap((pattern) => [
        shape(1, Math.ceil(480 / block), block, 1, 16, { pattern }),
        shape(1, Math.ceil(384 / block), block, 1, 16, { pattern, causal: false }),
      ]),
    ),
    ...([16, 64] as const).flatMap((block) =>
      (['left', 'holes', 'one empty'] as const).flatMap((padding) => [
        shape(2, 256 / block, block, 2, 20, { padding, alibi: true, layouts: 2 }),
        shape(2, 256 / block, block, 1, 20, { padding, causal: false, pattern: 'globals' }),
      ]),
    ),
    shape(1, 12, 16, 3, 24, { added: 'per head', alibi: true, layouts: 3 }),
    shape(1, 3, 64, 2, 24, { added: 'one', causal: false, padding: 'left', pattern: 'globals' }),
    shape(1, 11, 32, 2, 32, { dropout: 0.1, pattern: 'globals' }),
    shape(2, 2, 128, 1, 16, { dropout: 0.4, causal: false, pattern: 'all' }),
    // Far keys that are skipped, and heads that have none.
    shape(1, 44, 16, 8, 16, { pattern: 'all', alibi: true }),
    // Head counts and sizes.
    shape(1, 5, 16, 7, 16, { layouts: 5 }),
    ...[1, 17, 80, 96, 128, 256].map((D) => shape(1, 5, 16, 1, D, { pattern: 'globals' })),
    ...(['bf16', 'f16'] as const).flatMap((dtype) => [
      shape(2, 9, 16, 2, 24, { dtype, pattern: 'globals' }),
      shape(1, 3, 32, 3, 20, { dtype, padding: 'left', dropout: 0.2, alibi: true }),
      shape(1, 2, 64, 1, 80, { dtype, causal: false, added: 'one' }),
    ]),
    shape(1, 256, 16, 8, 64, { pattern: 'window', bench: true }),
    shape(1, 64, 64, 8, 64, { pattern: 'window', bench: true }),
    shape(1, 64, 64, 8, 64, { pattern: 'window', dtype: 'bf16', bench: true }),
  ],
  run(inputs, parameters) {
    return { ...sparseAttention(inputs.qkv!, layoutOf(parameters), options(inputs, parameters)) };
  },
  backward: {
    outputs: ['out'],
    run(inputs, { out, lse }, { out: dout }, parameters) {
      const saved = { qkv: inputs.qkv!, out: out!, lse: lse! };
      return { qkv: sparseAttentionBackward(dout!, saved, layoutOf(parameters), options(inputs, parameters)) };
    },
  },
  sumLength: (c) => Math.max(...c.inputs.qkv!.shape.slice(1)),
  bytes: (c) => elements(c) * (c.dtype === 'f32' ? 4 : 2) * (4 / 3),
  // Two products forward over the blocks that are there; the diagonal's triangle counts whole.
  flops: (c) => {
    const { nonzeroBlocks, block } = layoutOf(c.parameters);
    const [B, , width] = c.inputs.qkv!.shape as [number, number, number];
    return B * nonzeroBlocks * block ** 2 * 4 * (width / 3 / (c.parameters!.heads as number));
  },
};

function elements(c: OpCase): number {
  return c.inputs.qkv!.shape.reduce((n, d) => n * d, 1);
}

function options({ slopes, added, mask }: Tensors, parameters: Record<string, number | boolean>) {
  const { causal, scale, p, seed, offset } = parameters as Record<string, number> & { causal: boolean };
  return {
    causal,
    ...(slopes ? { slopes } : {}),
    ...(added ? { added } : {}),
    ...(mask ? { mask } : {}),
    ...(scale ? { scale } : {}),
    ...(p ? { dropout: { p, seed: seed!, offset: offset! } } : {}),
  };
}
