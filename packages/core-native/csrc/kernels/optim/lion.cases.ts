import { type DType, dtypeBytes, lionStep, numelOf, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

/** Every seventh element has moment and gradient 0: a direction without a sign. */
function range(n: number, grad: DType, copy: DType | 'none', more: Partial<OpCase> = {}): OpCase {
  return {
    name: `[${n}] grad ${grad}, copy ${copy}${more.name ?? ''}`,
    dtype: 'f32',
    inputs: {
      p: { shape: [n] },
      m: { shape: [n], value: (random, i) => (i % 7 === 3 ? 0 : 0.01 * random.normal()) },
      grad: { shape: [n], dtype: grad, value: (random, i) => (i % 7 === 3 ? 0 : 0.1 * random.normal()) },
      // Only its dtype matters: parameters of a case are numbers and flags.
      ...(copy === 'none' ? {} : { copy: { shape: [n], dtype: copy } }),
    },
    ...(more.parameters ? { parameters: more.parameters } : {}),
    ...(more.bench ? { bench: true } : {}),
  };
}

const grads = ['f32', 'bf16', 'f16'] as const;

export const lionCases: OpCases = {
  op: 'lion',
  cases: [
    ...grads.flatMap((grad) =>
      (['none', 'bf16', 'f16', 'f32'] as const).map((copy) => range(1037, grad, copy, { parameters: { decay: 0.1 } })),
    ),
    range(1, 'f32', 'bf16'),
    range(0, 'f32', 'bf16'),
    range(16501, 'bf16', 'bf16', { name: ', scaled', parameters: { decay: 0.1, gradScale: 1 / 1024 } }),
    range(10_000_000, 'f32', 'none', { bench: true }),
    range(10_000_000, 'bf16', 'bf16', { bench: true }),
  ],
  run({ p, m, grad, copy }, { decay = 0, gradScale = 1 }) {
    const written = copy && Tensor.empty(copy.shape, { dtype: copy.dtype, device: copy.device });
    const numbers = { lr: 1e-2, weightDecay: decay as number, gradScale: gradScale as number };
    lionStep({ p: p!, m: m!, grad: grad!, ...numbers, ...(written ? { copy: written } : {}) });
    return { p: p!, m: m!, ...(written ? { copy: written } : {}) };
  },
  bytes: (c) =>
    numelOf(c.inputs.p!.shape) *
    (16 + dtypeBytes[c.inputs.grad!.dtype ?? 'f32'] + (c.inputs.copy ? dtypeBytes[c.inputs.copy.dtype ?? 'f32'] : 0)),
  flops: (c) => numelOf(c.inputs.p!.shape) * 10,
};
