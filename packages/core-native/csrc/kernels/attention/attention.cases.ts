import { alibiSlopes, attention, attentionBackward } from '@ds/core-native';
import type { OpCase, OpCases, Random } from '../common/cases';

type Padding = 'left' | 'right' | 'holes' | 'one empty';

interface Settings {
  dtype?: OpCase['dtype'];
  alibi?: boolean;
  causal?: boolean;
  padding?: Padding;
  scale?: number;
  /** Probability; the seed and the offset follow from the shape. */
  dropout?: number;
  bench?: boolean;
}

/** Sequence b of a batch has 1 + 5 b padding tokens (or every third is one), so that no two rows are alike. */
function isReal(padding: Padding, b: number, t: number, T: number): boolean {
  const pad = 1 + 5 * b;
  if (padding === 'left') return t >= pad;
  if (padding === 'right') return t < Math.max(1, T - pad);
  if (padding === 'one empty') return b > 0;
  return (7 * t + b) % 3 !== 0;
}

function shape(B: number, T: number, H: number, D: number, settings: Settings = {}): OpCase {
  const { dtype = 'f32', alibi = true, causal = true, padding, scale, dropout, bench } = settings;
  const slopes = alibiSlopes(H);
  const notes = [
    alibi ? '' : ', no slopes',
    causal ? '' : ', not causal',
    padding ? `, padding ${padding}` : '',
    dropout ? `, dropout ${dropout}` : '',
    scale ? `, scale ${scale}` : '',
  ];
  return {
    name: `B ${B} T ${T} H ${H} D ${D} ${dtype}${notes.join('')}`,
    dtype,
    inputs: {
      qkv: { shape: [B, T, H * 3 * D] },
      ...(alibi ? { slopes: { shape: [H], dtype: 'f32', value: (_: Random, i: number) => slopes[i]! } } : {}),
      ...(padding
        ? {
            mask: {
              shape: [B, T],
              dtype: 'u8',
              value: (_: Random, i: number) => Number(isReal(padding, Math.floor(i / T), i % T, T)),
            },
          }
        : {}),
    },
    parameters: {
      heads: H,
      causal,
      ...(scale ? { scale } : {}),
      ...(dropout ? { p: dropout, seed: 2 ** 40 + B, offset: 3 + T } : {}),
    },
    ...(bench ? { bench: true } : {}),
  };
}

const paddings = ['left', 'right', 'holes', 'one empty'] as const;

export const attentionCases: OpCases = {
  op: 'attention',
  cases: [
    // Small enough for finite differences.
    shape(1, 1, 1, 3),
    shape(1, 5, 2, 4),
    shape(2, 5, 1, 3, { alibi: false }),
    shape(1, 6, 2, 4, { causal: false }),
    shape(2, 6, 1, 5, { dropout: 0.4 }),
    shape(2, 7, 1, 4, { causal: false, dropout: 0.25, scale: 0.3 }),
    ...paddings.map((padding) => shape(2, 7, 1, 4, { padding })),
    shape(2, 6, 1, 4, { padding: 'holes', causal: false, dropout: 0.3 }),
    // Empty, and one more or less than vectors, strips and blocks hold.
    shape(0, 4, 1, 8),
    shape(2, 0, 1, 8),
    ...[1, 15, 16, 17, 47, 48, 49, 63, 64, 65].map((T) => shape(1, T, 1, 16)),
    shape(2, 129, 6, 24),
    shape(1, 301, 2, 32, { dropout: 0.1 }),
    shape(1, 300, 1, 32, { causal: false }),
    // More than one group of keys in the backward pass, and far keys that are skipped.
    shape(1, 700, 8, 16),
    shape(1, 700, 1, 16, { dtype: 'bf16', alibi: false }),
    shape(1, 600, 1, 16, { dtype: 'f16', causal: false }),
    // Head counts and sizes.
    shape(1, 40, 16, 16),
    shape(5, 33, 8, 16),
    ...[1, 80, 96, 128, 256].map((D) => shape(1, 70, 1, D)),
    ...(['bf16', 'f16'] as const).flatMap((dtype) => [
      shape(2, 70, 2, 24, { dtype }),
      shape(2, 37, 3, 20, { dtype, padding: 'left', dropout: 0.2 }),
      shape(1, 70, 1, 80, { dtype, alibi: false, causal: false }),
    ]),
    ...paddings.map((padding) => shape(3, 130, 2, 20, { padding })),
    shape(2, 130, 2, 20, { padding: 'holes', causal: false, dropout: 0.1 }),
    ...[1024, 2048, 4096].map((T) => shape(1, T, 8, 64, { bench: true })),
    shape(1, 2048, 8, 64, { dtype: 'bf16', bench: true }),
    shape(8, 256, 8, 32, { bench: true }),
  ],
  run({ qkv, slopes, mask }, parameters) {
    return { ...attention(qkv!, options(slopes, mask, parameters)) };
  },
  backward: {
    outputs: ['out'],
    run({ qkv, slopes, mask }, { out, lse }, { out: dout }, parameters) {
      return {
        qkv: attentionBackward(dout!, { qkv: qkv!, out: out!, lse: lse! }, options(slopes, mask, parameters)),
      };
    },
  },
  sumLength: (c) => Math.max(...c.inputs.qkv!.shape.slice(1)),
  bytes: (c) => elements(c) * (c.dtype === 'f32' ? 4 : 2) * (4 / 3),
  // Two products forward; each pair of a causal query and key counts once.
  flops: (c) => (elements(c) / 3) * c.inputs.qkv!.shape[1]! * 4 * (c.parameters?.causal ? 0.5 : 1),
};

function elements(c: OpCase): number {
  return c.inputs.qkv!.shape.reduce((n, d) => n * d, 1);
}

type OptionalTensor = Parameters<OpCases['run']>[0][string] | undefined;

function options(slopes: OptionalTensor, mask: OptionalTensor, parameters: Parameters<OpCases['run']>[1]) {
  const { heads, causal, scale, p, seed, offset } = parameters as Record<string, number> & { causal: boolean };
  return {
    heads: heads!,
    causal,
    ...(slopes ? { slopes } : {}),
    ...(mask ? { mask } : {}),
    ...(scale ? { scale } : {}),
    ...(p ? { dropout: { p, seed: seed!, offset: offset! } } : {}),
  };
}
