/** AdamW over 1e9 parameters, or what fits, against PyTorch's fused one. The same 2^20 numbers again and again: nothing that large is carried. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { root } from '../../programs.mjs';
import { rivalDevice } from '../op-bench.mjs';
import { expectEqual, makeInputs, OpSide } from '../op-side.mjs';
import { lastingPythonRival } from '../process-side.mjs';

const PARAMETERS = 1e9;
const names = ['p', 'm', 'v', 'grad'];

/** Parameters, moments and gradients in f32, on both sides. */
const BYTES_EACH = 2 * 4 * names.length;

/** Fills a tensor of many periods from one of a single period, by copies that double. */
function tile(core, tensor, period) {
  const n = period.numel;
  core.copy(period, tensor.view([n], 0));
  for (let done = n; done < tensor.numel; done *= 2) {
    const more = Math.min(done, tensor.numel - done);
    core.copy(tensor.view([more], 0), tensor.view([more], done));
  }
}

class Ours {
  name = 'ours';
  constructor(core, device, packed, period, repeats) {
    Object.assign(this, { core, device, packed, period, repeats, step: 0 });
  }

  start() {
    const { core, device, period, repeats } = this;
    this.step = 0;
    this.tensors = {};
    for (const name of names) {
      const all = core.Tensor.empty([period * repeats], { device });
      core.scope(() => {
        const one = core.Tensor.empty([period], { device });
        one.writeBytes(this.packed[name]);
        tile(core, all, one);
      });
      this.tensors[name] = all;
    }
  }

  async run(iterations) {
    for (let i = 0; i < iterations; i++) {
      this.step++;
      this.core.adamwStep({ ...this.tensors, lr: 1e-2, step: this.step });
    }
    await this.core.device(this.device).stream.join();
  }

  /** One period of each result: the first, one in the middle and the last. */
  async periods() {
    const found = [];
    for (const k of new Set([0, Math.floor(this.repeats / 2), this.repeats - 1]))
      for (const name of ['p', 'm', 'v']) {
        const part = this.tensors[name].view([this.period], k * this.period);
        found.push({ name, what: `${name} of period ${k}`, dtype: 'f32', values: await part.read() });
        part.dispose();
      }
    return found;
  }

  stop() {
    for (const tensor of Object.values(this.tensors ?? {})) tensor.dispose();
    this.tensors = undefined;
  }
}

/** Equality first: every period against `ref`, and against the rival where there is one. */
async function equal({ core, spec, c, packed, ours, folder }, rival) {
  const ref = new OpSide(core, spec, c, packed, { backward: false, device: 'ref' });
  await ref.start();
  const want = await ref.results();
  await ref.stop();
  const theirs = rival && (await rival.outputs(folder)).outputs;
  await ours.run(1);
  for (const { name, what, ...got } of await ours.periods()) {
    expectEqual(what, got, want[name].values, { terms: 1 });
    if (!theirs) continue;
    const bytes = readFileSync(theirs[name]);
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    expectEqual(`${what} against ${rival.name}`, got, values, { terms: 1, loose: true });
  }
}

export function benches({ core, require, device }) {
  const name = 'cuda/adamw';
  const { emulated, devices } = core.cudaDevices();
  const make = async () => {
    const specs = require(path.join(root, 'test/ops/specs.ts')).allSpecs();
    const { Random } = require(path.join(root, 'packages/core-native/csrc/kernels/common/cases.ts'));
    const spec = specs.find(({ op }) => op === 'adamw');
    const period = emulated ? 1000 : 2 ** 20;
    const most = emulated ? 4000 : Math.min(PARAMETERS, (0.8 * devices[0].free) / BYTES_EACH);
    const repeats = Math.floor(most / period);
    const c = {
      name: `[${period}] x ${repeats}`,
      dtype: 'f32',
      inputs: {
        ...Object.fromEntries(names.map((each) => [each, { shape: [period] }])),
        v: { shape: [period], value: (random) => random.uniform() },
      },
    };
    const packed = await makeInputs(core, Random, c);
    const folder = mkdtempSync(path.join(tmpdir(), 'ds-bench-'));
    const described = await new OpSide(core, spec, c, packed, { backward: false }).describe(folder);
    const prepare = {
      op: 'adamw',
      device: rivalDevice(core, device),
      parameters: {},
      threads: core.threads(),
      repeats,
      ...described,
    };
    const ours = new Ours(core, device, packed, period, repeats);
    const numbers = period * repeats;
    return {
      name,
      task: `AdamW over ${numbers} parameters, f32, ${device}`,
      ours: { name: 'ours', start: () => ours.start(), run: (n) => ours.run(n), stop: () => stop() },
      rival: lastingPythonRival('torch fused AdamW', 'ops.py', { prepare }),
      // Reads all four, writes three.
      roofline: { bytes: numbers * 28 },
      equal: ({ rival }) => equal({ core, spec, c, packed, ours, folder }, rival),
    };

    function stop() {
      ours.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  };
  return [{ name, make }];
}
