/**
 * Walks every `<op>.cases.ts`: values on `cpu` with every instruction set and on the emulated CUDA device against the
 * specification, bits against the number of threads, and gradients against finite differences.
 */
import { cpuFeatures, cudaDevices, type DeviceName, setThreads, threads } from '@ds/core-native';
import type { OpCase, OpCases } from '../../packages/core-native/csrc/kernels/common/cases';
import { native } from '../../packages/core-native/src/loader';
import {
  expectGradient,
  expectSpecification,
  makeInputs,
  makeReference,
  type Outcome,
  type Reference,
  runCase,
} from './compare';
import { allSpecs } from './specs';

const { isa: best, supported } = cpuFeatures();
const allThreads = threads();
const cuda = cudaDevices().devices.length > 0;
const itOnCuda = cuda ? it : it.skip;

afterEach(() => {
  setThreads(allThreads);
  native.set_isa(best);
});

/** Finite differences call the forward twice per element: only small cases, and f64 makes the dtype irrelevant. */
function isSmall(c: OpCase): boolean {
  const elements = Object.values(c.inputs).reduce((n, input) => n + input.shape.reduce((a, b) => a * b, 1), 0);
  return c.dtype === 'f32' && elements > 0 && elements <= 400;
}

let last: { c: OpCase; reference: Promise<Reference> } | undefined;

/** What the tests of one case, which follow each other, compare with. */
function referenceOf(spec: OpCases, c: OpCase): Promise<Reference> {
  if (last?.c !== c) last = { c, reference: makeReference(spec, c) };
  return last.reference;
}

async function expectOn(device: DeviceName, spec: OpCases, c: OpCase): Promise<void> {
  await expectSpecification(spec, c, device, await referenceOf(spec, c));
}

/** Tells the first element whose bits differ; NaN equals NaN. */
function firstDifference(a: Outcome, b: Outcome): string | undefined {
  for (const kind of ['outputs', 'gradients'] as const)
    for (const [name, values] of Object.entries(a[kind])) {
      const at = values.findIndex((x, i) => !Object.is(x, b[kind][name]![i]));
      if (at >= 0) return `${kind} ${name}[${at}]: ${values[at]} and ${b[kind][name]![at]}`;
    }
  return undefined;
}

for (const spec of allSpecs()) {
  describe(spec.op, () => {
    for (const c of spec.cases.filter((c) => !c.bench)) {
      for (const isa of supported) {
        it(`equals the specification on cpu with ${isa}: ${c.name}`, async () => {
          native.set_isa(isa);
          await expectOn('cpu', spec, c);
        }, 30000);
      }

      itOnCuda(
        `equals the specification on cuda${cuda ? '' : ' (not built here)'}: ${c.name}`,
        () => expectOn('cuda:0', spec, c),
        120000,
      );

      it(`gives the same bits with 1, 2 and 3 threads: ${c.name}`, async () => {
        const { values } = await referenceOf(spec, c);
        setThreads(1);
        const one = await runCase(spec, c, values, 'cpu', false);
        for (const count of [2, 3]) {
          setThreads(count);
          expect(firstDifference(one, await runCase(spec, c, values, 'cpu', false))).toBeUndefined();
        }
      }, 30000);
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

describe('the CUDA library', () => {
  itOnCuda('has a kernel for every op', () => {
    expect(Object.keys(native.signatures).filter((op) => !native.has_cuda_kernel(op))).toEqual([]);
  });

  it('is walked by the same cases as the CPU', () => {
    const cases = allSpecs().reduce((n, spec) => n + spec.cases.filter((c) => !c.bench).length, 0);
    console.log(
      `${cases} cases of ${allSpecs().length} ops ${cuda ? 'run on' : 'are skipped: there is no'} emulated CUDA device`,
    );
    expect(cases).toBeGreaterThan(600);
  });
});
