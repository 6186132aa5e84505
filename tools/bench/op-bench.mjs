/** The bench of one case of an op, on any device, against PyTorch's op of rivals/ops.py on the same inputs. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expectEqual, makeInputs, OpSide } from './op-side.mjs';
import { lastingPythonRival, pythonRival } from './process-side.mjs';

/** Past this the specification's plain loops would take minutes; a rival that computes the same then vouches. */
const MOST_FLOPS_ON_REF = 5e9;

/** Where a rival computes: on the same GPU, or beside an emulated one on the CPU. */
export function rivalDevice(core, device) {
  return device === 'cpu' || core.cudaDevices().emulated ? 'cpu' : 'cuda';
}

/** Reads what a rival wrote: float32, in the same order. */
function readOutputs(described) {
  return Object.entries(described).map(([name, file]) => {
    const bytes = readFileSync(file);
    return [name, new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)];
  });
}

/**
 * Makes a bench, its inputs with it.
 *
 * @param options.rival `{ variant, name, differs? }`: the function of rivals/ops.py, what people call it, and what other work it
 *     does if its results cannot be compared
 * @param options.roofline limits beside the case's bytes and operations, see README.md
 */
export async function makeOpBench({ core, Random }, spec, c, options) {
  const { name, backward, rival, device = 'cpu', roofline = {} } = options;
  const onCpu = device === 'cpu';
  const packed = await makeInputs(core, Random, c);
  const ours = new OpSide(core, spec, c, packed, { backward, device });
  const folder = mkdtempSync(path.join(tmpdir(), 'ds-bench-'));
  const described = await ours.describe(folder);
  const prepare = {
    op: rival.variant,
    backward,
    device: rivalDevice(core, device),
    parameters: c.parameters ?? {},
    threads: core.threads(),
    ...described,
  };
  const side = (onCpu ? pythonRival : lastingPythonRival)(`torch ${rival.name}`, 'ops.py', { prepare });
  const terms = spec.sumLength?.(c) ?? 1;
  const where = onCpu ? `${core.threads()} threads` : device;
  return {
    name,
    task: `${spec.op} ${c.name}, ${backward ? 'forward and backward' : 'forward'}, ${where}${rival.differs ? ` (rival: ${rival.differs})` : ''}`,
    ours: { name: 'ours', start: () => ours.start(), run: (n) => ours.run(n), stop: () => stop() },
    rival: side,
    // The cases count bytes and operations of the forward pass.
    ...(backward ? {} : { roofline: { bytes: spec.bytes(c), flops: spec.flops(c), ...roofline } }),
    async equal({ rival: running }) {
      const got = await ours.results();
      const compared = running && !rival.differs;
      const small = spec.flops(c) * (backward ? 3.5 : 1) <= MOST_FLOPS_ON_REF;
      if (!compared && !small && !onCpu)
        throw new Error('nothing to compare with: too large for `ref`, and no rival is here');
      // Where a GPU computes, a comparison with plain loops would take longer than all else.
      if (!compared || (small && onCpu)) {
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
