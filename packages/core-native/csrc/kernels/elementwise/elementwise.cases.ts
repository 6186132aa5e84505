import { cast, copy, dtypeBytes, fill, gelu, geluBackward, numelOf, scale, scaleAdd, Tensor } from '@ds/core-native';
import type { Input, OpCase, OpCases } from '../common/cases';

const dtypes = ['f32', 'bf16', 'f16'] as const;

const sizes = [[1], [0], [3, 7], [2, 129], [16385]] as const;

function table(inputs: (shape: readonly number[]) => Record<string, Input>, more: Partial<OpCase> = {}): OpCase[] {
  return dtypes.flatMap((dtype) =>
    sizes.map((shape) => ({ name: `[${shape}] ${dtype}`, dtype, inputs: inputs(shape), ...more })),
  );
}

/** BLOOM-560m's MLP activations of 512 tokens. */
function benched(dtype: OpCase['dtype'], inputs: readonly string[], more: Partial<OpCase> = {}): OpCase {
  const shape = [512, 4096];
  const named = Object.fromEntries(inputs.map((name) => [name, { shape }]));
  return { name: `[${shape}] ${dtype}`, dtype, inputs: named, bench: true, ...more };
}

/** From the flat left tail, through the dip near -0.75 and the zero, to where GELU is the identity. */
const spread: NonNullable<Input['value']> = (random) => random.normal() * 3;

export const scaleAddCases: OpCases = {
  op: 'scale_add',
  cases: [
    ...table((shape) => ({ a: { shape }, b: { shape } }), { parameters: { alpha: 1, beta: 1 } }),
    ...table((shape) => ({ a: { shape }, b: { shape } }), { parameters: { alpha: 0.3, beta: -1.7 } }),
    ...(['bf16', 'f16'] as const).map((dtype) => ({
      name: `[3, 129] f32 + ${dtype}`,
      dtype: 'f32' as const,
      inputs: { a: { shape: [3, 129] }, b: { shape: [3, 129], dtype } },
      parameters: { alpha: 1, beta: 0.125 },
    })),
    benched('f32', ['a', 'b'], { parameters: { alpha: 1, beta: 1 } }),
    benched('bf16', ['a', 'b'], { parameters: { alpha: 1, beta: 1 } }),
  ],
  run: ({ a, b }, { alpha, beta }) => ({ out: scaleAdd(alpha as number, a!, beta as number, b!) }),
  backward: {
    outputs: ['out'],
    run: ({ b }, _, { out }, { alpha, beta }) => ({
      a: scale(out!, alpha as number),
      b: copy(scale(out!, beta as number), Tensor.empty(b!.shape, { dtype: b!.dtype, device: b!.device })),
    }),
  },
  bytes: (c) => 3 * numelOf(c.inputs.a!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 3 * numelOf(c.inputs.a!.shape),
};

export const scaleCases: OpCases = {
  op: 'scale',
  cases: [
    ...table((shape) => ({ x: { shape } }), { parameters: { factor: -0.7 } }),
    benched('f32', ['x'], { parameters: { factor: 0.5 } }),
  ],
  run: ({ x }, { factor }) => ({ y: scale(x!, factor as number) }),
  backward: { outputs: ['y'], run: (_, __, { y }, { factor }) => ({ x: scale(y!, factor as number) }) },
  bytes: (c) => 2 * numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: (c) => numelOf(c.inputs.x!.shape),
};

export const castCases: OpCases = {
  op: 'copy',
  cases: [
    ...table((shape) => ({ x: { shape } })),
    { name: '[300] i32', dtype: 'i32', inputs: { x: { shape: [300], value: (random) => random.integer(1 << 26) } } },
    { name: '[300] u8', dtype: 'u8', inputs: { x: { shape: [300], value: (_, i) => i % 256 } } },
    benched('f32', ['x']),
  ],
  run({ x }) {
    const same = copy(x!, Tensor.empty(x!.shape, { dtype: x!.dtype, device: x!.device }));
    return { same, f32: cast(x!, 'f32'), bf16: cast(x!, 'bf16'), f16: cast(x!, 'f16'), f64: cast(x!, 'f64') };
  },
  bytes: (c) => numelOf(c.inputs.x!.shape) * (6 * dtypeBytes[c.dtype] + 4 + 2 + 2 + 8),
  flops: () => 0,
};

export const fillCases: OpCases = {
  op: 'fill',
  cases: [...dtypes, 'i32' as const, 'u8' as const].flatMap((dtype) =>
    [0, 1, 33, 40000].map((n) => ({ name: `[${n}] ${dtype}`, dtype, inputs: { x: { shape: [n] } } })),
  ),
  run: ({ x }) => ({ x: fill(x!, x!.dtype === 'u8' || x!.dtype === 'i32' ? 7 : 0.1) }),
  bytes: (c) => numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: () => 0,
};

export const geluCases: OpCases = {
  op: 'gelu',
  cases: [...table((shape) => ({ x: { shape, value: spread } })), benched('f32', ['x']), benched('bf16', ['x'])],
  run: ({ x }) => ({ y: gelu(x!) }),
  backward: { outputs: ['y'], run: ({ x }, _, { y: dy }) => ({ x: geluBackward(dy!, x!) }) },
  bytes: (c) => 2 * numelOf(c.inputs.x!.shape) * dtypeBytes[c.dtype],
  flops: (c) => 30 * numelOf(c.inputs.x!.shape),
};
