/** Ops that memory binds, at the sizes of a 1.3B model's step, against PyTorch; the roofline is a copy measured in the same run. */
import path from 'node:path';
import { root } from '../../programs.mjs';
import { makeOpBench } from '../op-bench.mjs';

/** Sizes: of a step, or small enough for an emulated device. */
const step = { rows: 8192, width: 4096, classes: 50304, classRows: 2048, table: [50304, 2048] };
const tiny = { rows: 8, width: 64, classes: 300, classRows: 4, table: [40, 16] };

/** `{ op, inputs, parameters, rival }` of every bench; 16-bit, normal numbers unless said. */
function cases({ rows: R, width: C, classes: V, classRows, table }) {
  const id = (below) => (random) => random.integer(below);
  return [
    {
      op: 'scale',
      what: 'copy',
      inputs: { x: { shape: [R, C] } },
      parameters: { factor: 1 },
      rival: { variant: 'memcpy', name: 'copy_ (cudaMemcpy)' },
    },
    {
      op: 'layer_norm',
      inputs: { x: { shape: [R, C] }, residual: { shape: [R, C] }, weight: { shape: [C] }, bias: { shape: [C] } },
    },
    { op: 'gelu', inputs: { x: { shape: [R, C] } } },
    {
      op: 'softmax_cross_entropy',
      inputs: { logits: { shape: [classRows, V] }, targets: { shape: [classRows], dtype: 'i32', value: id(V) } },
      parameters: { scale: 1 / classRows },
    },
    { op: 'embedding', inputs: { ids: { shape: [R], dtype: 'i32', value: id(table[0]) }, table: { shape: table } } },
  ];
}

export function benches({ core, require, device }) {
  const specs = require(path.join(root, 'test/ops/specs.ts')).allSpecs();
  const { Random } = require(path.join(root, 'packages/core-native/csrc/kernels/common/cases.ts'));
  return cases(core.cudaDevices().emulated ? tiny : step).flatMap(({ op, what = op, rival, ...rest }) => {
    const spec = specs.find((each) => each.op === op);
    const c = { name: `[${Object.values(rest.inputs)[0].shape}] bf16`, dtype: 'bf16', ...rest };
    return (spec.backward && what === op ? [false, true] : [false]).map((backward) => {
      const name = `cuda/${what}/${backward ? 'forward+backward' : 'forward'}`;
      const options = { name, backward, device, rival: rival ?? { variant: op, name: op } };
      return { name, make: () => makeOpBench({ core, Random }, spec, c, options) };
    });
  });
}
