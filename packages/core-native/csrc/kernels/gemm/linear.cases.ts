import { linear, linearBackwardInput, linearBackwardWeight, Tensor } from '@ds/core-native';
import type { Input, OpCase, OpCases } from '../common/cases';

type Extra = 'bias' | 'gelu' | 'residual';

function product(R: number, K: number, N: number, dtype: OpCase['dtype'], extras: Extra[] = [], bench = false): OpCase {
  const inputs: Record<string, Input> = { x: { shape: [R, K] }, weight: { shape: [N, K] } };
  if (extras.includes('bias')) inputs.bias = { shape: [N] };
  if (extras.includes('residual')) inputs.residual = { shape: [R, N] };
  const name = `[${R}, ${K}] x [${N}, ${K}]^T ${dtype}${extras.map((extra) => ` + ${extra}`).join('')}`;
  return { name, dtype, inputs, parameters: { gelu: extras.includes('gelu') }, ...(bench ? { bench } : {}) };
}

const dtypes = ['f32', 'bf16', 'f16'] as const;

export const linearCases: OpCases = {
  op: 'linear',
  cases: [
    ...dtypes.flatMap((dtype) => [
      product(1, 1, 1, dtype, ['bias']),
      product(3, 5, 7, dtype),
      product(3, 5, 7, dtype, ['bias', 'residual']),
      product(2, 6, 5, dtype, ['bias', 'gelu']),
      product(0, 16, 8, dtype, ['bias']),
      product(17, 33, 31, dtype, ['bias', 'gelu', 'residual']),
      // Beyond one block of depth (384), one panel of columns (192) and one chunk of rows (512), by a few.
      product(37, 391, 67, dtype, ['bias']),
      product(5, 16, 401, dtype, ['residual']),
      product(523, 9, 15, dtype),
    ]),
    // Rows 1 to 16: where generation lives.
    ...[1, 2, 8, 16].map((R) => product(R, 64, 192, 'f32', ['bias'])),
    product(1024, 768, 3072, 'f32', ['bias', 'gelu'], true),
    product(1024, 3072, 768, 'f32', ['bias', 'residual'], true),
    product(1024, 768, 3072, 'bf16', ['bias', 'gelu'], true),
    product(1024, 768, 50304, 'f32', [], true),
    product(2048, 256, 8192, 'f32', [], true),
  ],
  run({ x, weight, bias, residual }, { gelu }) {
    const options = { gelu: gelu === true, savePre: gelu === true };
    return { ...linear(x!, weight!, { ...options, ...(bias ? { bias } : {}), ...(residual ? { residual } : {}) }) };
  },
  backward: {
    // With a GELU the gradient is that of what goes into it; gelu_backward has cases of its own.
    outputs: ['y'],
    run({ x, weight, bias, residual }, _outputs, { y: dy }, { gelu }) {
      if (gelu) return {};
      const like = (t: Tensor) => Tensor.empty(t.shape, { dtype: t.dtype, device: t.device });
      const dweight = like(weight!);
      const dbias = bias && like(bias);
      linearBackwardWeight(dy!, x!, { dweight, ...(dbias ? { dbias } : {}), accumulate: false });
      const dx = linearBackwardInput(dy!, weight!);
      return {
        x: dx,
        weight: dweight,
        ...(dbias ? { bias: dbias } : {}),
        ...(residual ? { residual: dy!.view(dy!.shape) } : {}),
      };
    },
  },
  sumLength: (c) => Math.max(...c.inputs.x!.shape, ...c.inputs.weight!.shape),
  bytes: (c) => {
    const [R, K] = c.inputs.x!.shape as [number, number];
    const N = c.inputs.weight!.shape[0]!;
    return (R * K + N * K + R * N) * (c.dtype === 'f32' ? 4 : 2);
  },
  flops: (c) => 2 * c.inputs.x!.shape[0]! * c.inputs.x!.shape[1]! * c.inputs.weight!.shape[0]!,
};
