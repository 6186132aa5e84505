import { blockSoftmax, blockSoftmaxBackward } from '@ds/core-native';
import type { OpCase, OpCases, Random, Tensors } from '../common/cases';
import { type Drawing, drawn, layoutOf } from './cases';

interface Settings extends Partial<Drawing> {
  B?: number;
  dtype?: OpCase['dtype'];
  causal?: boolean;
  scale?: number;
  added?: 'one' | 'per head';
  /** Every third key hidden, and all of sequence 1. */
  masked?: boolean;
  bench?: boolean;
}

function shape(settings: Settings): OpCase {
  const { B = 1, dtype = 'f32', causal = false, scale = 0.7, added, masked = false, bench, ...given } = settings;
  const drawing: Drawing = { heads: 1, block: 16, blocks: 1, layouts: 1, pattern: 'random', ...given };
  const { heads: H, block, blocks } = drawing;
  const T = block * blocks;
  const Z = layoutOf(drawn(drawing)).nonzeroBlocks;
  const notes = [causal ? ', causal' : '', added ? `, added ${added}` : '', masked ? ', masked' : ''];
  return {
    name: `B ${B} T ${blocks} x ${block} H ${H} ${dtype}, ${drawing.pattern}${notes.join('')}`,
    dtype,
    inputs: {
      s: { shape: [B, Z, block, block], value: (random: Random) => 3 * random.normal() },
      ...(added ? { added: { shape: [added === 'one' ? 1 : H, T, T], dtype: 'f32' } } : {}),
      ...(masked
        ? {
            mask: {
              shape: [B, T],
              dtype: 'u8',
              value: (_: Random, i: number) => Number(Math.floor(i / T) !== 1 && i % 3 !== 1),
            },
          }
        : {}),
    },
    parameters: { ...drawn(drawing), causal, scale },
    ...(bench ? { bench: true } : {}),
  };
}

export const blockSoftmaxCases: OpCases = {
  op: 'block_softmax',
  cases: [
    // Small enough for finite differences.
    shape({ pattern: 'all' }),
    shape({ pattern: 'all', causal: true, masked: true }),
    shape({ B: 0, pattern: 'all' }),
    shape({ blocks: 3, pattern: 'none' }),
    shape({ B: 2, heads: 3, blocks: 5, layouts: 2 }),
    shape({ B: 2, heads: 2, blocks: 7, pattern: 'holes', causal: true, masked: true, added: 'per head' }),
    shape({ block: 64, blocks: 4, pattern: 'globals', added: 'one', heads: 2, scale: 0.125 }),
    shape({ block: 128, blocks: 2, causal: true, pattern: 'all' }),
    ...(['bf16', 'f16'] as const).map((dtype) =>
      shape({ dtype, blocks: 6, heads: 2, pattern: 'globals', causal: true, masked: true, B: 2 }),
    ),
    shape({ block: 64, blocks: 64, heads: 8, pattern: 'window', causal: true, bench: true }),
  ],
  run: (inputs, p) => ({ p: blockSoftmax(inputs.s!, layoutOf(p), options(inputs, p)) }),
  backward: {
    outputs: ['p'],
    run: (_inputs, { p }, { p: dp }, parameters) => ({
      s: blockSoftmaxBackward(dp!, p!, layoutOf(parameters), parameters.scale as number),
    }),
  },
  sumLength: (c) => (c.parameters!.block as number) * (c.parameters!.blocks as number),
  bytes: (c) => c.inputs.s!.shape.reduce((n, d) => n * d, 1) * (c.dtype === 'f32' ? 4 : 2) * 2,
  flops: (c) => c.inputs.s!.shape.reduce((n, d) => n * d, 1) * 20,
};

function options({ added, mask }: Tensors, { scale, causal }: Record<string, number | boolean>) {
  return {
    scale: scale as number,
    causal: causal as boolean,
    ...(added ? { added } : {}),
    ...(mask ? { mask } : {}),
  };
}
