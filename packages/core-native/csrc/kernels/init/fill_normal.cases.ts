import { fillNormal, Tensor } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

function draw(N: number, dtype: OpCase['dtype'], seed: number, offset: number): OpCase {
  // The input only says which device and dtype to draw for.
  return {
    name: `[${N}] ${dtype}, offset ${offset}`,
    dtype,
    inputs: { like: { shape: [N] } },
    parameters: { seed, offset },
  };
}

export const fillNormalCases: OpCases = {
  op: 'fill_normal',
  cases: [
    draw(0, 'f32', 1, 0),
    draw(1, 'f32', 1, 7),
    draw(10001, 'f32', 42, 3),
    draw(4097, 'bf16', 2 ** 40 + 5, 2 ** 33),
    draw(33, 'f16', 0, 0),
  ],
  run({ like }, { seed, offset }) {
    const y = Tensor.empty(like!.shape, { dtype: like!.dtype, device: like!.device });
    fillNormal(y, { mean: 0.5, std: 2, seed: seed as number, offset: offset as number });
    return { y };
  },
  bytes: (c) => c.inputs.like!.shape[0]! * 4,
  flops: (c) => c.inputs.like!.shape[0]! * 50,
};
