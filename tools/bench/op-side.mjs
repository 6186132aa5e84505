/** Our side of an op bench: inputs of a case, the op on a device, and its results as numbers. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';

/** Makes the values of a case's inputs, packed in their dtypes. Plain ones are drawn natively, because cases are large. */
export async function makeInputs(core, Random, c) {
  const random = new Random(1);
  const packed = {};
  let offset = 0;
  for (const [name, input] of Object.entries(c.inputs)) {
    const dtype = input.dtype ?? c.dtype;
    const n = core.numelOf(input.shape);
    if (input.value) {
      packed[name] = core.packNumbers(
        dtype,
        Float64Array.from({ length: n }, (_, i) => input.value(random, i)),
      );
    } else {
      const tensor = core.Tensor.empty(input.shape, { dtype });
      core.fillNormal(tensor, { std: 1, seed: 1, offset });
      packed[name] = await tensor.read();
      tensor.dispose();
      offset += n;
    }
  }
  return packed;
}

function upload(core, c, packed, device) {
  return Object.fromEntries(
    Object.entries(c.inputs).map(([name, { shape, dtype = c.dtype }]) => {
      const tensor = core.Tensor.empty(shape, { dtype, device });
      tensor.writeBytes(packed[name]);
      return [name, tensor];
    }),
  );
}

/** Runs a case, forward or forward and backward, on a device. */
export class OpSide {
  name = 'ours';
  #core;
  #spec;
  #case;
  #packed;
  #backward;
  #device;
  #inputs;
  #gradients;

  constructor(core, spec, c, packed, { backward, device = 'cpu' }) {
    this.#core = core;
    this.#spec = spec;
    this.#case = c;
    this.#packed = packed;
    this.#backward = backward;
    this.#device = device;
  }

  async start() {
    this.#inputs = upload(this.#core, this.#case, this.#packed, this.#device);
    this.#gradients = {};
    if (this.#backward) await this.#makeOutputGradients();
  }

  /** The gradients of the outputs: normal numbers, the same for every side. */
  async #makeOutputGradients() {
    const { Tensor, fillNormal, scope } = this.#core;
    const outputs = scope(() => this.#spec.run(this.#inputs, this.#case.parameters ?? {}));
    for (const [i, name] of this.#spec.backward.outputs.entries()) {
      const { shape, dtype } = outputs[name];
      const d = Tensor.empty(shape, { dtype, device: this.#device });
      fillNormal(d, { std: 1, seed: 2 + i });
      this.#gradients[name] = d;
    }
    for (const tensor of new Set(Object.values(outputs))) if (!this.#isInput(tensor)) tensor.dispose();
    await this.#join();
  }

  #isInput(tensor) {
    return Object.values(this.#inputs).includes(tensor);
  }

  #join() {
    return this.#core.device(this.#device).stream.join();
  }

  /** Enqueues one iteration; gives the results by name, gradients as `d<input>`. */
  #iterate() {
    const parameters = this.#case.parameters ?? {};
    const outputs = this.#spec.run(this.#inputs, parameters);
    if (!this.#backward) return outputs;
    const gradients = this.#spec.backward.run(this.#inputs, outputs, this.#gradients, parameters);
    const named = Object.entries(gradients).map(([name, tensor]) => [`d${name}`, tensor]);
    return { ...outputs, ...Object.fromEntries(named) };
  }

  async run(iterations) {
    for (let i = 0; i < iterations; i++) this.#core.scope(() => void this.#iterate());
    await this.#join();
  }

  /** Gives the results of one iteration from the inputs as they were made: an op may work in place. */
  async results() {
    const { scope, unpackNumbers } = this.#core;
    await this.stop();
    await this.start();
    const results = scope(() => this.#iterate());
    const read = {};
    for (const [name, tensor] of Object.entries(results))
      read[name] = { dtype: tensor.dtype, values: unpackNumbers(tensor.dtype, await tensor.read()) };
    for (const tensor of new Set(Object.values(results))) if (!this.#isInput(tensor)) tensor.dispose();
    await this.stop();
    await this.start();
    return read;
  }

  /** Writes inputs and output gradients as raw files for a rival; gives `{ name: { file, dtype, shape } }` of both. */
  async describe(folder) {
    await this.start();
    const write = (prefix, name, values, { dtype, shape }) => {
      const file = path.join(folder, `${prefix}-${name}.bin`);
      writeFileSync(file, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      return { file, dtype, shape };
    };
    const described = { inputs: {}, gradients: {} };
    for (const [name, tensor] of Object.entries(this.#inputs))
      described.inputs[name] = write('input', name, this.#packed[name], tensor);
    for (const [name, tensor] of Object.entries(this.#gradients))
      described.gradients[name] = write('gradient', name, await tensor.read(), tensor);
    await this.stop();
    return described;
  }

  async stop() {
    for (const tensor of [...Object.values(this.#inputs ?? {}), ...Object.values(this.#gradients ?? {})])
      tensor.dispose();
    this.#inputs = this.#gradients = undefined;
  }
}

const epsilon = { f32: 2 ** -23, bf16: 2 ** -7, f16: 2 ** -10, f64: 2 ** -52, i32: 0, u8: 0 };

/**
 * Fails unless two results agree as two correct orders of the same arithmetic may differ: a rounding or two of the
 * element, noise that grows with the root of the number of terms, and (`loose`, for others' 16-bit kernels, which round
 * in between and add up in 16 bits) a few roundings of the largest element.
 */
export function expectEqual(what, got, want, { terms, loose = false }) {
  if (got.values.length !== want.length) throw new Error(`${what}: ${got.values.length} elements, not ${want.length}`);
  let largest = 0;
  for (const value of want) if (Number.isFinite(value)) largest = Math.max(largest, Math.abs(value));
  const rounding = epsilon[got.dtype];
  const noise =
    rounding === 0 ? 0 : epsilon.f32 * (8 + 8 * Math.sqrt(terms)) * largest + (loose ? 4 * rounding * largest : 0);
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs(got.values[i] - want[i]);
    if (!(error <= noise + 2 * rounding * Math.abs(want[i])) && !Object.is(got.values[i], want[i]))
      throw new Error(`${what} (${got.dtype}): element ${i} is ${got.values[i]}, not ${want[i]}`);
  }
}
