import { dtypeBytes, numelOf, siluGate, siluGateBackward } from '@ds/core-native';
import type { OpCase, OpCases } from '../common/cases';

function shape(shape: readonly number[], dtype: OpCase['dtype'], bench = false): OpCase {
  return {
    name: `[${shape}] ${dtype}`,
    dtype,
    inputs: {
      // From the flat left tail, through the dip near -1.3 and the zero, to where SiLU is the identity.
      gate: { shape, value: (random) => 4 * random.normal() },
      up: { shape },
    },
    ...(bench ? { bench: true } : {}),
  };
}

const dtypes = ['f32', 'bf16', 'f16'] as const;

export const siluGateCases: OpCases = {
  op: 'silu_gate',
  cases: [
    ...dtypes.flatMap((dtype) => [[1], [0], [3, 7], [2, 129], [16391]].map((size) => shape(size, dtype))),
    // LLaMA-7B's MLP activations of 512 tokens.
    shape([512, 11008], 'f32', true),
    shape([512, 11008], 'bf16', true),
  ],
  run: ({ gate, up }) => ({ y: siluGate(gate!, up!) }),
  backward: {
    outputs: ['y'],
    run({ gate, up }, _, { y: dy }) {
      const { dgate, dup } = siluGateBackward(dy!, { gate: gate!, up: up! });
      return { gate: dgate, up: dup };
    },
  },
  bytes: (c) => 3 * numelOf(c.inputs.gate!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 25 * numelOf(c.inputs.gate!.shape),
};
