/** One bench for every case marked `bench` in csrc/kernels, forward, and forward with backward, against PyTorch's op. */
import path from 'node:path';
import { root } from '../../programs.mjs';
import { makeOpBench } from '../op-bench.mjs';

/**
 * The rivals of an op, by what rivals/ops.py calls them. `differs`: does other work, so its results are not compared;
 * says what. Ops that are not listed have one, of the op's own name.
 */
const rivals = {
  attention: [
    { variant: 'sdpa_mask', name: 'SDPA with a mask' },
    { variant: 'sdpa_causal', name: 'causal SDPA', differs: 'no ALiBi' },
  ],
  dropout: [{ variant: 'dropout', name: 'dropout + add', differs: 'other random numbers' }],
  adamw: [{ variant: 'adamw', name: 'fused AdamW' }],
};

/** The optimizer's floor is a stream of its own mix of reads and writes. */
function limitsOf(op) {
  return op === 'adamw' ? { limits: ['adam_mix'] } : {};
}

export function benches({ core, require }) {
  const { allSpecs } = require(path.join(root, 'test/ops/specs.ts'));
  const { Random } = require(path.join(root, 'packages/core-native/csrc/kernels/common/cases.ts'));
  return allSpecs().flatMap((spec) =>
    spec.cases
      .filter((c) => c.bench)
      .flatMap((c) =>
        (spec.backward ? [false, true] : [false]).flatMap((backward) =>
          (rivals[spec.op] ?? [{ variant: spec.op, name: spec.op }]).map((rival, _, all) => {
            const against = all.length > 1 ? ` vs ${rival.name}` : '';
            const name = `op/${spec.op}/${c.name}/${backward ? 'forward+backward' : 'forward'}${against}`;
            const options = { name, backward, rival, roofline: limitsOf(spec.op) };
            return { name, make: () => makeOpBench({ core, Random }, spec, c, options) };
          }),
        ),
      ),
  );
}
