import { type AdamWStep, adamwStep, type DType, dtypeBytes, numelOf, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

function range(n: number, grad: DType, copy: DType | 'none', more: Partial<OpCase> = {}): OpCase {
  return {
    name: `[${n}] grad ${grad}, copy ${copy}${more.name ?? ''}`,
    dtype: 'f32',
    inputs: {
      p: { shape: [n] },
      m: { shape: [n], value: (random) => 0.01 * random.normal() },
      v: { shape: [n], value: (random) => 1e-4 * random.uniform() },
      grad: { shape: [n], dtype: grad, value: (random) => 0.1 * random.normal() },
      // Only its dtype matters: parameters of a case are numbers and flags.
      ...(copy === 'none' ? {} : { copy: { shape: [n], dtype: copy } }),
    },
    ...(more.parameters ? { parameters: more.parameters } : {}),
    ...(more.bench ? { bench: true } : {}),
  };
}

const grads = ['f32', 'bf16', 'f16'] as const;

export const adamwCases: OpCases = {
  op: 'adamw',
  cases: [
    ...grads.flatMap((grad) =>
      (['none', 'bf16', 'f16', 'f32'] as const).map((copy) => range(1037, grad, copy, { parameters: { decay: 0.1 } })),
    ),
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
    const written = copy && Tensor.empty(copy.shape, { dtype: copy.dtype, device: copy.device });
    adamwStep({
      ...options,
      weightDecay: decay as number,
      decay: l2 ? 'l2' : 'decoupled',
      gradScale: gradScale as number,
      ...(written ? { copy: written } : {}),
    });
    return { p: p!, m: m!, v: v!, ...(written ? { copy: written } : {}) };
  },
  bytes: (c) =>
    numelOf(c.inputs.p!.shape) *
    (24 + dtypeBytes[c.inputs.grad!.dtype ?? 'f32'] + (c.inputs.copy ? dtypeBytes[c.inputs.copy.dtype ?? 'f32'] : 0)),
  flops: (c) => numelOf(c.inputs.p!.shape) * 16,
};
