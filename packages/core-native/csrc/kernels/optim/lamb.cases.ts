import { type DType, lambMoments, lambStep, numelOf, Tensor } from '@ds/core-native';
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

/** Both ops of a step; `cut`: the parameter in two pieces of which the first has so many elements. */
export const lambCases: OpCases = {
  op: 'lamb_step',
  cases: [
    ...dtypePairs.map(({ grad, copy }) => range(1037, grad, copy, { parameters: { decay: 0.1 } })),
    range(1, 'f32', 'bf16'),
    range(0, 'f32', 'bf16'),
    range(16501, 'bf16', 'bf16', { name: ', cut, step 9', parameters: { decay: 0.1, cut: 4097, step: 9 } }),
    range(100, 'f32', 'none', { name: ', scaled', parameters: { decay: 0.1, gradScale: 1 / 1024, step: 1000 } }),
    range(100, 'f32', 'none', { name: ', held below', parameters: { highest: 0.05 } }),
    range(100, 'f32', 'none', { name: ', held above', parameters: { lowest: 5 } }),
    range(10_000_000, 'f32', 'none', { bench: true }),
    range(10_000_000, 'bf16', 'bf16', { bench: true }),
  ],
  run(inputs, { decay = 0, step = 1, gradScale = 1, cut = 0, lowest = 0.01, highest = 10 }) {
    const { p, m, v, grad, copy } = inputs as { p: Tensor; m: Tensor; v: Tensor; grad: Tensor; copy?: Tensor };
    const written = copyLike(copy);
    const squares = Tensor.empty([2], { dtype: 'f64', device: p.device });
    const n = p.numel;
    const pieces = cut === 0 ? [[0, n] as const] : [[0, cut as number] as const, [cut as number, n] as const];
    const piece = (from: number, to: number) => {
      const part = (t: Tensor): Tensor => t.view([to - from], from);
      return { p: part(p), m: part(m), v: part(v), squares, weightDecay: decay as number };
    };
    for (const [from, to] of pieces) {
      const scaled = { grad: grad.view([to - from], from), gradScale: gradScale as number };
      lambMoments({ ...piece(from, to), ...scaled, accumulate: from > 0 });
    }
    for (const [from, to] of pieces)
      lambStep({
        ...piece(from, to),
        step: step as number,
        lr: 1e-2,
        minCoefficient: lowest as number,
        maxCoefficient: highest as number,
        ...(written ? { copy: written.view([to - from], from) } : {}),
      });
    return { p, m, v, squares, ...(written ? { copy: written } : {}) };
  },
  sumLength: (c) => Math.max(1, numelOf(c.inputs.p!.shape)),
  bytes: (c) => bytesOfStep(c, 36),
  flops: (c) => numelOf(c.inputs.p!.shape) * 24,
};
