/** Walks every `<op>.cases.ts`: values on `cpu` against the specification, and gradients against finite differences. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import type { OpCase, OpCases } from '../../packages/core-native/csrc/kernels/common/cases';
import { expectClose, expectGradient, makeInputs, runCase } from './compare';

const kernels = path.resolve(__dirname, '../../packages/core-native/csrc/kernels');

function allSpecs(): OpCases[] {
  return readdirSync(kernels, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.cases.ts'))
    .sort()
    .flatMap((file) => Object.values(require(path.join(kernels, file)) as Record<string, OpCases>));
}

/** Finite differences call the forward twice per element: only small cases, and f64 makes the dtype irrelevant. */
function isSmall(c: OpCase): boolean {
  const elements = Object.values(c.inputs).reduce((n, input) => n + input.shape.reduce((a, b) => a * b, 1), 0);
  return c.dtype === 'f32' && elements > 0 && elements <= 400;
}

for (const spec of allSpecs()) {
  describe(spec.op, () => {
    for (const c of spec.cases.filter((c) => !c.bench)) {
      it(`equals the specification on cpu: ${c.name}`, async () => {
        const values = makeInputs(c);
        const exact = await runCase(spec, c, values, 'ref', true);
        const low = await runCase(spec, c, values, 'ref', false);
        const cpu = await runCase(spec, c, values, 'cpu', false);
        const size = { terms: spec.sumLength?.(c) ?? 1, scale: c.termScale };
        for (const name of Object.keys(exact.outputs))
          expectClose(name, cpu.dtypes[name]!, cpu.outputs[name]!, low.outputs[name]!, exact.outputs[name]!, size);
        for (const name of Object.keys(exact.gradients))
          expectClose(
            `d${name}`,
            cpu.dtypes[`d${name}`]!,
            cpu.gradients[name]!,
            low.gradients[name]!,
            exact.gradients[name]!,
            size,
          );
      });
    }
    if (spec.backward) {
      for (const c of spec.cases.filter(isSmall)) {
        it(
          `has the gradient that finite differences show: ${c.name}`,
          () => expectGradient(spec, c, makeInputs(c)),
          60000,
        );
      }
    }
  });
}
