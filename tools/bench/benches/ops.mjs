/** One bench for every case marked `bench` in csrc/kernels, forward, and forward with backward, against PyTorch's op. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { root } from '../../programs.mjs';
import { expectEqual, makeInputs, OpSide } from '../op-side.mjs';
import { pythonRival } from '../process-side.mjs';

/** Past this the specification's plain loops would take minutes; a rival that computes the same then vouches. */
const MOST_FLOPS_ON_REF = 5e9;

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

/** Reads what a rival wrote: float32, in the same order. */
function readOutputs(described) {
  return Object.entries(described).map(([name, file]) => {
    const bytes = readFileSync(file);
    return [name, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)];
  });
}

async function makeBench({ core, Random }, spec, c, backward, rival, name) {
  const packed = await makeInputs(core, Random, c);
  const ours = new OpSide(core, spec, c, packed, { backward });
  const folder = mkdtempSync(path.join(tmpdir(), 'ds-bench-'));
  const described = await ours.describe(folder);
  const prepare = {
    op: rival.variant,
    backward,
    parameters: c.parameters ?? {},
    threads: core.threads(),
    ...described,
  };
  const side = pythonRival(`torch ${rival.name}`, 'ops.py', { prepare });
  const terms = spec.sumLength?.(c) ?? 1;
  return {
    name,
    task: `${spec.op} ${c.name}, ${backward ? 'forward and backward' : 'forward'}, ${core.threads()} threads${rival.differs ? ` (rival: ${rival.differs})` : ''}`,
    ours: { name: 'ours', start: () => ours.start(), run: (n) => ours.run(n), stop: () => stop() },
    rival: side,
    // The cases count bytes and operations of the forward pass.
    ...(backward ? {} : { roofline: { bytes: spec.bytes(c), flops: spec.flops(c), ...limitsOf(spec.op) } }),
    async equal({ rival: running }) {
      const got = await ours.results();
      const compared = running && !rival.differs;
      if (!compared || spec.flops(c) * (backward ? 3.5 : 1) <= MOST_FLOPS_ON_REF) {
        const ref = new OpSide(core, spec, c, packed, { backward, device: 'ref' });
        await ref.start();
        const want = await ref.results();
        await ref.stop();
        for (const key of Object.keys(want)) expectEqual(key, got[key], want[key].values, { terms });
      }
      if (compared)
        for (const [key, values] of readOutputs((await running.outputs(folder)).outputs))
          expectEqual(`${key} against ${running.name}`, got[key], values, { terms, loose: true });
    },
  };

  async function stop() {
    await ours.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

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
            return { name, make: () => makeBench({ core, Random }, spec, c, backward, rival, name) };
          }),
        ),
      ),
  );
}
