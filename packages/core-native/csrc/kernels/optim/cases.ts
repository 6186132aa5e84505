/** What the cases of all optimizers share: flat shards with a gradient of any dtype, and perhaps a copy. */
import { type DType, dtypeBytes, numelOf, Tensor } from '@ds/core-native';
import type { Input, OpCase } from '../common/cases';

/** A case of `n` elements; `states`: p and the moments. */
export function shard(
  n: number,
  grad: DType,
  copy: DType | 'none',
  values: { states: Record<string, Input['value']>; grad: Input['value'] },
  more: Partial<OpCase> = {},
): OpCase {
  const input = (value: Input['value'], dtype?: DType): Input => ({
    shape: [n],
    ...(dtype ? { dtype } : {}),
    ...(value ? { value } : {}),
  });
  return {
    name: `[${n}] grad ${grad}, copy ${copy}${more.name ?? ''}`,
    dtype: 'f32',
    inputs: {
      ...Object.fromEntries(Object.entries(values.states).map(([name, value]) => [name, input(value)])),
      grad: input(values.grad, grad),
      // Only its dtype matters: parameters of a case are numbers and flags.
      ...(copy === 'none' ? {} : { copy: input(undefined, copy) }),
    },
    ...(more.parameters ? { parameters: more.parameters } : {}),
    ...(more.bench ? { bench: true } : {}),
  };
}

/** Every dtype of gradients with every dtype of copies. */
export const dtypePairs = (['f32', 'bf16', 'f16'] as const).flatMap((grad) =>
  (['none', 'bf16', 'f16', 'f32'] as const).map((copy) => ({ grad, copy })),
);

/** The tensor that an op writes its copy into, where the case has one. */
export function copyLike(copy: Tensor | undefined): Tensor | undefined {
  return copy && Tensor.empty(copy.shape, { dtype: copy.dtype, device: copy.device });
}

/** Bytes of a step that moves `states` bytes of f32 an element, beside the gradient and the copy. */
export function bytesOfStep(c: OpCase, states: number): number {
  const copy = c.inputs.copy ? dtypeBytes[c.inputs.copy.dtype ?? 'f32'] : 0;
  return numelOf(c.inputs.p!.shape) * (states + dtypeBytes[c.inputs.grad!.dtype ?? 'f32'] + copy);
}
