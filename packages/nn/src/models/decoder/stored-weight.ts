/** Ways in which files hold a weight, and what all of a description's weights need of a file. */
import { numelOf } from '@ds/core-native';
import type { DecoderDescription, LinearLayer, NormLayer, StoredRows, StoredWeight } from './description';

/** A tensor of the same shape. */
export function whole(tensor: string, shape: readonly number[]): StoredWeight {
  return { shape, parts: [run(tensor, shape, { run: shape[0]! })] };
}

/** [out, in] that is stored as [in, out]. */
export function transposed(tensor: string, [rows, columns]: readonly [number, number]): StoredWeight {
  const shape = [rows, columns];
  return { shape, parts: [{ ...run(tensor, [columns, rows], { run: rows }), transposed: true }] };
}

/** Weights one below the other. */
export function stacked(...weights: readonly StoredWeight[]): StoredWeight {
  const rows = weights.reduce((sum, { shape }) => sum + shape[0]!, 0);
  return { shape: [rows, ...weights[0]!.shape.slice(1)], parts: weights.flatMap(({ parts }) => parts) };
}

/** Queries, keys and values of all heads, stored head by head: q, k and v of the first head, then those of the second. */
function headByHead(tensor: string, heads: number, shape: readonly number[]): StoredWeight {
  const size = shape[0]! / heads / 3;
  const part = (p: number) => run(tensor, shape, { first: p * size, run: size, stride: 3 * size, runs: heads });
  return { shape, parts: [part(0), part(1), part(2)] };
}

/** `<name>.weight` and, if there is one, `<name>.bias`, stored as they are used. */
export function linearLayer(name: string, shape: readonly [number, number], bias: boolean): LinearLayer {
  return {
    weight: whole(`${name}.weight`, shape),
    bias: bias ? whole(`${name}.bias`, [shape[0]]) : undefined,
  };
}

/** Queries, keys and values [3C, C] that a file holds head by head, with their bias. */
export function headByHeadLayer(name: string, heads: number, C: number, bias: boolean): LinearLayer {
  return {
    weight: headByHead(`${name}.weight`, heads, [3 * C, C]),
    bias: bias ? headByHead(`${name}.bias`, heads, [3 * C]) : undefined,
  };
}

export function layerNormLayer(name: string, size: number, eps: number): NormLayer {
  return { kind: 'layer', eps, weight: whole(`${name}.weight`, [size]), bias: whole(`${name}.bias`, [size]) };
}

export function rmsNormLayer(name: string, size: number, eps: number): NormLayer {
  return { kind: 'rms', eps, weight: whole(`${name}.weight`, [size]), bias: undefined };
}

/** The shape of every stored tensor that a description's weights are made of, by name without prefix. */
export function tensorsOf(description: DecoderDescription): ReadonlyMap<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  for (const { parts } of weightsOf(description)) for (const { tensor, shape } of parts) shapes.set(tensor, shape);
  return shapes;
}

/** Parameters of a model, a shared one counted once. */
export function parameterCount(description: DecoderDescription): number {
  return weightsOf(description).reduce((sum, { shape }) => sum + numelOf(shape), 0);
}

/** All weights, in the order in which a description names them. Walked without naming fields, so that none is forgotten. */
function weightsOf(part: unknown): StoredWeight[] {
  if (typeof part !== 'object' || part === null || part instanceof RegExp) return [];
  return 'parts' in part ? [part as StoredWeight] : Object.values(part).flatMap(weightsOf);
}

function run(tensor: string, shape: readonly number[], rows: Partial<StoredRows> & { run: number }): StoredRows {
  return { tensor, shape, transposed: false, first: 0, stride: rows.run, runs: 1, ...rows };
}
