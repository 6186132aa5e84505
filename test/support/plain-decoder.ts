/**
 * Runs a decoder description as one would write it down: loops over numbers in double precision, without ops, caches or batches.
 * So that descriptions are tested by themselves, and engines against something that shares no code with them.
 */
import {
  type AttentionLayer,
  type DecoderDescription,
  type DecoderLayer,
  type LinearLayer,
  type MlpLayer,
  matchTensorNames,
  type NormLayer,
  rotaryTable,
  type StoredWeight,
  tensorsOf,
} from '@ds/nn';
import type { GoldenTensor } from './golden';

type Row = Float64Array<ArrayBuffer>;

export interface PlainResult {
  /** [T][V] */
  logits: Row[];
  /** As `FamilyPrompt.hidden_l2` counts them: [T][C] each. */
  hidden: Row[][];
}

export function plainDecoder(
  description: DecoderDescription,
  file: ReadonlyMap<string, GoldenTensor>,
): (ids: readonly number[]) => PlainResult {
  const wanted = tensorsOf(description);
  const names = matchTensorNames({ ...description, names: [...wanted.keys()] }, [...file.keys()], 'golden file');
  const read = (weight: StoredWeight) => rowsOf(weight, (tensor) => file.get(names.get(tensor)!)!.values);
  const linear = (x: Row[], { weight, bias }: LinearLayer) => product(x, read(weight), bias && read(bias).flat());
  const norm = (x: Row[], layer: NormLayer) =>
    normalised(x, layer, read(layer.weight).flat(), layer.bias && read(layer.bias).flat());
  const vector = (weight: StoredWeight) => read(weight).flat();

  return (ids) => {
    const { embedding, positions, finalNorm, head, layers } = description;
    const table = read(embedding.table);
    let x = ids.map((id) => Float64Array.from(table[id]!));
    if (embedding.projectIn) x = linear(x, embedding.projectIn);
    if (positions.kind === 'learned') {
      const places = read(positions.table);
      x = x.map((row, p) => row.map((value, c) => value + places[p + positions.offset]![c]!));
    }
    if (embedding.norm) x = norm(x, embedding.norm);
    const hidden = [x];
    for (const layer of layers) {
      x = runLayer(x, layer);
      hidden.push(x);
    }
    hidden.pop();
    if (finalNorm) x = norm(x, finalNorm);
    if (head.projectOut) x = linear(x, head.projectOut);
    hidden.push(x);
    return { hidden, logits: product(x, head.weight ? read(head.weight) : table, undefined) };
  };

  function runLayer(x: Row[], { arrangement, attention, attentionNorm, mlp, mlpNorm }: DecoderLayer): Row[] {
    const half = (from: Row[], normLayer: NormLayer, run: (x: Row[]) => Row[]) => {
      if (arrangement === 'post_norm') return norm(sum(from, run(from)), normLayer);
      const n = norm(from, normLayer);
      return sum(arrangement === 'pre_norm_residual' ? n : from, run(n));
    };
    const h = half(x, attentionNorm, (n) => attend(n, attention));
    if (arrangement === 'parallel') return sum(h, feedForward(norm(x, mlpNorm), mlp));
    return half(h, mlpNorm, (n) => feedForward(n, mlp));
  }

  function attend(x: Row[], layer: AttentionLayer): Row[] {
    const { heads: H, keyValueHeads: G, headSize: D } = layer;
    const { positions } = description;
    const turns =
      positions.kind === 'rotary' ? rotaryTable(positions, x.length, description.context!.tokens) : undefined;
    const qkv = linear(x, layer.queryKeyValue);
    const head = (row: Row, at: number, p: number, normWeight: StoredWeight | undefined) => {
      let part = Float64Array.from(row.subarray(at * D, (at + 1) * D));
      if (normWeight) part = rmsNorm(part, vector(normWeight), layer.headNorms!.eps);
      if (positions.kind === 'rotary') rotate(part, positions.size, turns!.subarray(p * positions.size));
      return part;
    };
    const keys = qkv.map((row, p) => Array.from({ length: G }, (_, g) => head(row, H + g, p, layer.headNorms?.key)));
    const context = qkv.map((row, p) => {
      const out = new Float64Array(H * D);
      for (let h = 0; h < H; h++) {
        const g = Math.floor(h / (H / G));
        const q = head(row, h, p, layer.headNorms?.query);
        const from = layer.window === undefined ? 0 : Math.max(0, p - layer.window + 1);
        const scores = keys.slice(from, p + 1).map((key, i) => {
          const score = layer.scale * dot(q, key[g]!);
          return positions.kind === 'alibi' ? score + slope(h, H) * (from + i - p) : score;
        });
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((a, b) => a + b, 0);
        weights.forEach((weight, i) => {
          const value = qkv[from + i]!.subarray((H + G + g) * D);
          for (let d = 0; d < D; d++) out[h * D + d]! += (weight / total) * value[d]!;
        });
      }
      return out;
    });
    return linear(context, layer.output);
  }

  function feedForward(x: Row[], { kind, activation, up, down }: MlpLayer): Row[] {
    const wide = linear(x, up);
    const act = activations[activation];
    if (kind === 'plain')
      return linear(
        wide.map((row) => row.map(act)),
        down,
      );
    const F = wide[0]!.length / 2;
    return linear(
      wide.map((row) => row.subarray(0, F).map((gate, i) => act(gate) * row[F + i]!)),
      down,
    );
  }
}

/** A weight's rows, put together from the tensors that it is stored in. */
export function rowsOf(weight: StoredWeight, values: (tensor: string) => ArrayLike<number>): number[][] {
  const columns = weight.shape[1] ?? 1;
  return weight.parts.flatMap(({ tensor, transposed, shape, first, run, stride, runs }) => {
    const stored = values(tensor);
    const at = (row: number, column: number) => stored[transposed ? column * shape[1]! + row : row * columns + column]!;
    return Array.from({ length: runs * run }, (_, i) => {
      const row = first + Math.floor(i / run) * stride + (i % run);
      return Array.from({ length: columns }, (_, column) => at(row, column));
    });
  });
}

const activations = {
  relu: (x: number) => Math.max(0, x),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_exact: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
};

/** Its Maclaurin series, or 1 minus what is below 1e-16. */
function erf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x);
  let term = x;
  let total = x;
  for (let n = 1; Math.abs(term) > 1e-18 * Math.abs(total) && n < 300; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

function product(x: Row[], weight: number[][], bias: number[] | undefined): Row[] {
  return x.map((row) => Float64Array.from(weight, (w, n) => dot(row, w) + (bias ? bias[n]! : 0)));
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i]! * b[i]!;
  return total;
}

function sum(a: Row[], b: Row[]): Row[] {
  return a.map((row, p) => row.map((value, c) => value + b[p]![c]!));
}

function normalised(x: Row[], { kind, eps }: NormLayer, weight: number[], bias: number[] | undefined): Row[] {
  return x.map((row) => {
    if (kind === 'rms') return rmsNorm(row, weight, eps);
    const mean = row.reduce((a, b) => a + b, 0) / row.length;
    const variance = row.reduce((total, value) => total + (value - mean) ** 2, 0) / row.length;
    return row.map((value, c) => ((value - mean) / Math.sqrt(variance + eps)) * weight[c]! + bias![c]!);
  });
}

function rmsNorm(row: Row, weight: number[], eps: number): Row {
  const factor = 1 / Math.sqrt(dot(row, row) / row.length + eps);
  return row.map((value, c) => value * factor * weight[c]!);
}

function rotate(head: Row, size: number, turns: Float32Array): void {
  const half = size / 2;
  for (let i = 0; i < half; i++) {
    const [a, b, c, s] = [head[i]!, head[i + half]!, turns[i]!, turns[half + i]!];
    head[i] = a * c - b * s;
    head[i + half] = b * c + a * s;
  }
}

/** ALiBi's slope of a head. Source: Press et al. 2022, sec. 3; for other numbers of heads than powers of two, its code. */
function slope(h: number, heads: number): number {
  const whole = 2 ** Math.floor(Math.log2(heads));
  return h < whole ? 2 ** ((-8 * (h + 1)) / whole) : 2 ** ((-4 * (2 * (h - whole) + 1)) / whole);
}
