import { type DType, lionStep, numelOf } from '@ds/core-native';
import type { OpCase, OpCases, Random } from '../common/cases';
import { bytesOfStep, copyLike, dtypePairs, shard } from './cases';

/** Every seventh element has moment and gradient 0: a direction without a sign. */
const values = {
  states: { p: undefined, m: (random: Random, i: number) => (i % 7 === 3 ? 0 : 0.01 * random.normal()) },
  grad: (random: Random, i: number) => (i % 7 === 3 ? 0 : 0.1 * random.normal()),
};

function range(n: number, grad: DType, copy: DType | 'none', more: Partial<OpCase> = {}): OpCase {
  return shard(n, grad, copy, values, more);
}

export const lionCases: OpCases = {
  op: 'lion',
  cases: [
    ...dtypePairs.map(({ grad, copy }) => range(1037, grad, copy, { parameters: { decay: 0.1 } })),
    range(1, 'f32', 'bf16'),
    range(0, 'f32', 'bf16'),
    range(16501, 'bf16', 'bf16', { name: ', scaled', parameters: { decay: 0.1, gradScale: 1 / 1024 } }),
    range(10_000_000, 'f32', 'none', { bench: true }),
    range(10_000_000, 'bf16', 'bf16', { bench: true }),
  ],
  run({ p, m, grad, copy }, { decay = 0, gradScale = 1 }) {
    const written = copyLike(copy);
    const numbers = { lr: 1e-2, weightDecay: decay as number, gradScale: gradScale as number };
    lionStep({ p: p!, m: m!, grad: grad!, ...numbers, ...(written ? { copy: written } : {}) });
    return { p: p!, m: m!, ...(written ? { copy: written } : {}) };
  },
  bytes: (c) => bytesOfStep(c, 16),
  flops: (c) => numelOf(c.inputs.p!.shape) * 10,
};
