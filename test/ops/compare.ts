/**
 * Runs one case on a device and compares it with the specification (`ref` in f64). For jest and for tools/gpu-check alike:
 * what does not hold is thrown.
 */
import { type DeviceName, type DType, packNumbers, scope, Tensor, unpackNumbers } from '@ds/core-native';
import { type OpCase, type OpCases, Random, type Tensors } from '../../packages/core-native/csrc/kernels/common/cases';

export type Values = Record<string, Float64Array>;

const epsilon: Record<DType, number> = { f32: 2 ** -23, bf16: 2 ** -7, f16: 2 ** -10, f64: 2 ** -52, i32: 0, u8: 0 };

function isInteger(dtype: DType): boolean {
  return dtype === 'i32' || dtype === 'u8';
}

/** Makes the inputs of a case, already rounded to the dtypes they will have, as numbers. */
export function makeInputs(c: OpCase, seed = 1): Values {
  const random = new Random(seed);
  return Object.fromEntries(
    Object.entries(c.inputs).map(([name, input]) => {
      const dtype = input.dtype ?? c.dtype;
      const n = input.shape.reduce((a, b) => a * b, 1);
      const raw = new Float64Array(n);
      for (let i = 0; i < n; i++) raw[i] = input.value ? input.value(random, i) : random.normal();
      return [name, unpackNumbers(dtype, packNumbers(dtype, raw))];
    }),
  );
}

function upload(c: OpCase, values: Values, device: DeviceName, wide: boolean): Tensors {
  return Object.fromEntries(
    Object.entries(c.inputs).map(([name, input]) => {
      const own = input.dtype ?? c.dtype;
      const dtype = wide && !isInteger(own) ? 'f64' : own;
      return [name, Tensor.from(values[name]!, input.shape, { dtype, device })];
    }),
  );
}

/** Weights that turn the outputs into one number, whose gradient is checked. */
function outputWeights(name: string, n: number): Float64Array {
  const random = new Random(name.length * 7919 + n);
  const weights = new Float64Array(n);
  for (let i = 0; i < n; i++) weights[i] = random.normal();
  return weights;
}

export interface Outcome {
  outputs: Values;
  gradients: Values;
  dtypes: Record<string, DType>;
}

/** Runs forward and backward of a case. `wide`: every float in f64, which only `ref` can. */
export async function runCase(
  spec: OpCases,
  c: OpCase,
  values: Values,
  device: DeviceName,
  wide: boolean,
): Promise<Outcome> {
  const made = scope(() => {
    const inputs = upload(c, values, device, wide);
    const outputs = spec.run(inputs, c.parameters ?? {});
    if (!spec.backward) return { outputs, gradients: {} as Tensors };
    const d: Tensors = {};
    for (const name of spec.backward.outputs) {
      const out = outputs[name]!;
      d[name] = Tensor.from(outputWeights(name, out.numel), out.shape, { dtype: out.dtype, device });
    }
    return { outputs, gradients: spec.backward.run(inputs, outputs, d, c.parameters ?? {}) };
  });
  const read = async (tensors: Tensors): Promise<Values> => {
    const entries: [string, Float64Array][] = [];
    for (const [name, tensor] of Object.entries(tensors)) entries.push([name, await tensor.numbers()]);
    return Object.fromEntries(entries);
  };
  const dtypes: Record<string, DType> = {};
  for (const [name, tensor] of Object.entries(made.outputs)) dtypes[name] = tensor.dtype;
  for (const [name, tensor] of Object.entries(made.gradients)) dtypes[`d${name}`] = tensor.dtype;
  const outcome = { outputs: await read(made.outputs), gradients: await read(made.gradients), dtypes };
  for (const tensor of new Set([...Object.values(made.outputs), ...Object.values(made.gradients)])) tensor.dispose();
  return outcome;
}

/**
 * Fails unless |out - exact| <= 2 |low - exact| + one rounding of the element + float noise of the sum.
 *
 * `low` is the specification run at the case's own storage precision: a kernel may be twice as far from the truth as the
 * naive low-precision computation is, as in the FlashAttention tests (Dao et al. 2022), plus f32 accumulation, whose
 * error grows with the root of the number of terms (Higham 2002, sec. 4.2, random signs).
 */
export function expectClose(
  what: string,
  dtype: DType,
  out: Float64Array,
  low: Float64Array,
  exact: Float64Array,
  { terms, scale = 0 }: { terms: number; scale?: number | undefined },
): void {
  if (out.length !== exact.length) throw new Error(`${what}: ${out.length} elements, not ${exact.length}`);
  let worstLow = 0;
  let largest = scale;
  for (let i = 0; i < exact.length; i++) {
    if (Number.isFinite(exact[i]!)) {
      worstLow = Math.max(worstLow, Math.abs(low[i]! - exact[i]!));
      largest = Math.max(largest, Math.abs(exact[i]!));
    }
  }
  const rounding = epsilon[dtype];
  const noise = isInteger(dtype) ? 0 : 2 * worstLow + epsilon.f32 * (4 + 4 * Math.sqrt(terms)) * largest;
  for (let i = 0; i < exact.length; i++) {
    const error = Math.abs(out[i]! - exact[i]!);
    const bound = noise + rounding * Math.abs(exact[i]!);
    // Infinities and NaN have no distance: they must be the same.
    if (!(error <= bound) && !Object.is(out[i], exact[i]))
      throw new Error(
        `${what} (${dtype}): element ${i} is ${out[i]}, the specification says ${exact[i]}; off by ${error}, allowed ${bound}`,
      );
  }
}

/** What a case gives by the specification. */
export interface Reference {
  values: Values;
  /** In f64, and at the case's own precision. */
  exact: Outcome;
  low: Outcome;
}

export async function makeReference(spec: OpCases, c: OpCase): Promise<Reference> {
  const values = makeInputs(c);
  const exact = await runCase(spec, c, values, 'ref', true);
  return { values, exact, low: await runCase(spec, c, values, 'ref', false) };
}

/** Fails unless a device gives the specification's outputs and gradients. */
export async function expectSpecification(
  spec: OpCases,
  c: OpCase,
  device: DeviceName,
  { values, exact, low }: Reference,
): Promise<void> {
  const found = await runCase(spec, c, values, device, false);
  const size = { terms: spec.sumLength?.(c) ?? 1, scale: c.termScale };
  for (const kind of ['outputs', 'gradients'] as const)
    for (const name of Object.keys(exact[kind])) {
      const what = kind === 'outputs' ? name : `d${name}`;
      expectClose(what, found.dtypes[what]!, found[kind][name]!, low[kind][name]!, exact[kind][name]!, size);
    }
}

/** The sum of all outputs that have a gradient, each element times its weight, in f64 on `ref`. */
async function weightedSum(spec: OpCases, c: OpCase, values: Values): Promise<number> {
  const outputs = scope(() => spec.run(upload(c, values, 'ref', true), c.parameters ?? {}));
  let total = 0;
  for (const name of spec.backward!.outputs) {
    const out = await outputs[name]!.numbers();
    const weights = outputWeights(name, out.length);
    for (let i = 0; i < out.length; i++) total += out[i]! * weights[i]!;
  }
  for (const tensor of new Set(Object.values(outputs))) tensor.dispose();
  return total;
}

/** Compares the specification's gradient with central differences of the specification's forward, all in f64. */
export async function expectGradient(spec: OpCases, c: OpCase, values: Values): Promise<void> {
  const { gradients } = await runCase(spec, c, values, 'ref', true);
  const step = 1e-5;
  for (const [name, gradient] of Object.entries(gradients)) {
    const largest = gradient.reduce((m, g) => Math.max(m, Math.abs(g)), 1e-3);
    for (let i = 0; i < gradient.length; i++) {
      const at = async (delta: number): Promise<number> => {
        const moved = { ...values, [name]: Float64Array.from(values[name]!) };
        moved[name]![i]! += delta;
        return weightedSum(spec, c, moved);
      };
      const difference = ((await at(step)) - (await at(-step))) / (2 * step);
      // Central differences are off by O(step^2) f''' and by rounding / step: about 1e-8 here, at most 1e-6 of the largest.
      if (!(Math.abs(difference - gradient[i]!) <= 2e-6 * largest))
        throw new Error(`${spec.op} ${c.name}: d${name}[${i}] is ${gradient[i]}, finite differences say ${difference}`);
    }
  }
}
