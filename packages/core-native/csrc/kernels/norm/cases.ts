/** What the cases of all normalisations share: rows, perhaps with a residual, and a weight near 1. */
import { numelOf } from '@ds/core-native';
import type { OpCase } from '../common/cases';

/** A case of [R, C]; `extra.inputs` come beside or in place of x, residual and weight. */
export function rows(
  R: number,
  C: number,
  dtype: OpCase['dtype'],
  extra: Partial<OpCase> = {},
  residual = false,
): OpCase {
  return {
    name: `[${R}, ${C}] ${dtype}${residual ? ' + residual' : ''}${extra.name ?? ''}`,
    dtype,
    inputs: {
      x: { shape: [R, C], value: (random) => random.normal() * 2 + 0.5 },
      ...(residual ? { residual: { shape: [R, C] } } : {}),
      weight: { shape: [C], value: (random) => 1 + 0.3 * random.normal() },
      ...extra.inputs,
    },
    ...(extra.parameters ? { parameters: extra.parameters } : {}),
    ...(extra.bench ? { bench: true } : {}),
  };
}

/** x and y, and residual and sum where they are. */
export function bytesOfRows(c: OpCase): number {
  return numelOf(c.inputs.x!.shape) * (c.dtype === 'f32' ? 4 : 2) * (c.inputs.residual ? 4 : 2);
}
