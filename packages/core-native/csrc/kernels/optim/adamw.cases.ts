import { type AdamWStep, adamwStep, type DType, numelOf } from '@ds/core-native';
import type { OpCase, OpCases, Random } from '../common/cases';
import { bytesOfStep, copyLike, dtypePairs, shard } from './cases';

const values = {
  states: {
    p: undefined,
    m: (random: Random) => 0.01 * random.normal(),
    v: (random: Random) => 1e-4 * random.uniform(),
  },
  grad: (random: Random) => 0.1 * random.normal(),
};

function range(n: number, grad: DType, copy: DType | 'none', more: Partial<OpCase> = {}): OpCase {
  return shard(n, grad, copy, values, more);
}

export const adamwCases: OpCases = {
  op: 'adamw',
  cases: [
    ...dtypePairs.map(({ grad, copy }) => range(1037, grad, copy, { parameters: { decay: 0.1 } })),
    range(1, 'f32', 'bf16'),
    range(0, 'f32', 'bf16'),
    range(16501, 'bf16', 'bf16', { name: ', L2, step 9', parameters: { decay: 0.1, l2: true, step: 9 } }),
    range(100, 'f32', 'none', { name: ', scaled', parameters: { decay: 0.1, gradScale: 1 / 1024, step: 1000 } }),
    range(10_000_000, 'f32', 'none', { bench: true }),
    range(10_000_000, 'f32', 'bf16', { bench: true }),
    range(10_000_000, 'bf16', 'bf16', { bench: true }),
  ],
  run({ p, m, v, grad, copy }, { decay = 0, l2 = false, step = 1, gradScale = 1 }) {
    const options: AdamWStep = { p: p!, m: m!, v: v!, grad: grad!, lr: 1e-2, step: step as number };
    const written = copyLike(copy);
    adamwStep({
      ...options,
      weightDecay: decay as number,
      decay: l2 ? 'l2' : 'decoupled',
      gradScale: gradScale as number,
      ...(written ? { copy: written } : {}),
    });
    return { p: p!, m: m!, v: v!, ...(written ? { copy: written } : {}) };
  },
  bytes: (c) => bytesOfStep(c, 24),
  flops: (c) => numelOf(c.inputs.p!.shape) * 16,
};
