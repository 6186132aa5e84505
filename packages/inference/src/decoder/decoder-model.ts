/**
 * Runs any decoder from its description: packed weights, and the few fused steps that a layer is made of.
 *
 * Rows are new tokens of any number of sequences, without padding. On the CPU the bits of a row depend on its own sequence alone:
 * every kernel here has one order of sums, whatever else is in the batch.
 */
import {
  add,
  alibiSlopes,
  cast,
  type Device,
  type DType,
  drop,
  embedding,
  keep,
  layerNorm,
  type PackedFormat,
  type PackedLinearOptions,
  type PackedWeight,
  type PagedKeyValues,
  type PagedRows,
  packedArgmax,
  packedLinear,
  packedRows,
  pagedAttention,
  pagedWrite,
  type RowNorm,
  rmsNorm,
  scope,
  Tensor,
  withOwner,
} from '@ds/core-native';
import { type DecoderDescription, type DecoderLayer, rotaryTable } from '@ds/nn';
import { type PackedLayer, WeightStore } from './load-weights';

export interface DecoderModelOptions {
  readonly device: Device;
  /** What matrices are held as. */
  readonly weights: PackedFormat;
  /** What keys and values are held as, and on a GPU activations, too. */
  readonly dtype: 'f32' | 'bf16' | 'f16';
  /** The longest sequence; Infinity where positions set no limit. */
  readonly contextTokens: number;
}

/** New tokens of S sequences, on the device. */
export interface DecoderBatch {
  /** [R] i32 */
  readonly ids: Tensor;
  /** [R] i32: each token's place in its sequence */
  readonly positions: Tensor;
  readonly rows: PagedRows;
  /** Tokens of the longest sequence, the new ones included. */
  readonly longest: number;
}

interface Layer {
  readonly description: DecoderLayer;
  readonly attentionNorm: RowNorm;
  readonly queryKeyValue: PackedLayer;
  readonly queryNorm: Tensor | undefined;
  readonly keyNorm: Tensor | undefined;
  readonly output: PackedLayer;
  readonly mlpNorm: RowNorm;
  readonly up: PackedLayer;
  readonly down: PackedLayer;
}

/** Positions that a rotary table starts with; it grows as texts do. */
const FIRST_POSITIONS = 1024;

export class DecoderModel implements Disposable {
  readonly description: DecoderDescription;
  readonly device: Device;
  readonly contextTokens: number;
  /** Of keys and values. */
  readonly dtype: 'f32' | 'bf16' | 'f16';
  /** Fill it before the model runs. */
  readonly weights: WeightStore;
  /** f32 on the CPU, where the kernels compute in it whatever the weights are. */
  readonly #activations: DType;
  readonly #table: PackedWeight;
  readonly #projectIn: PackedLayer | undefined;
  readonly #embeddingNorm: RowNorm | undefined;
  readonly #positionTable: Tensor | undefined;
  readonly #slopes: Tensor | undefined;
  #rotary: Tensor | undefined;
  readonly #layers: readonly Layer[];
  readonly #finalNorm: RowNorm | undefined;
  readonly #projectOut: PackedLayer | undefined;
  readonly #head: PackedWeight;

  /** @throws OOM, leaving nothing behind */
  constructor(description: DecoderDescription, { device, weights, dtype, contextTokens }: DecoderModelOptions) {
    this.description = description;
    this.device = device;
    this.contextTokens = contextTokens;
    this.dtype = dtype;
    this.#activations = device.isCuda ? dtype : 'f32';
    const store = new WeightStore(device, weights);
    this.weights = store;
    try {
      const { embedding: input, positions, layers, finalNorm, head } = description;
      this.#table = store.matrix(input.table);
      this.#projectIn = input.projectIn && store.linear(input.projectIn);
      this.#embeddingNorm = input.norm && store.norm(input.norm);
      this.#positionTable = positions.kind === 'learned' ? store.tensor(positions.table) : undefined;
      this.#layers = layers.map((layer) => ({
        description: layer,
        attentionNorm: store.norm(layer.attentionNorm),
        queryKeyValue: store.linear(layer.attention.queryKeyValue),
        queryNorm: layer.attention.headNorms && store.tensor(layer.attention.headNorms.query),
        keyNorm: layer.attention.headNorms && store.tensor(layer.attention.headNorms.key),
        output: store.linear(layer.attention.output),
        mlpNorm: store.norm(layer.mlpNorm),
        up: store.linear(layer.mlp.up, layer.mlp.kind === 'gated'),
        down: store.linear(layer.mlp.down),
      }));
      this.#finalNorm = finalNorm && store.norm(finalNorm);
      this.#projectOut = head.projectOut && store.linear(head.projectOut);
      this.#head = head.weight ? store.matrix(head.weight) : this.#table;
      this.#slopes = positions.kind === 'alibi' ? this.#makeSlopes(layers[0]!.attention.heads) : undefined;
    } catch (error) {
      store[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Sends new tokens through all layers and writes their keys and values into the pages.
   *
   * @param pages one for each layer
   * @param onHidden hears what enters the first layer and what leaves each; for inspection
   * @returns [R, C], before the final norm
   */
  hidden(batch: DecoderBatch, pages: readonly PagedKeyValues[], onHidden: (x: Tensor) => void = () => {}): Tensor {
    let x = this.#embed(batch);
    onHidden(x);
    const rotary = this.#rotaryFor(batch.longest);
    for (const [i, layer] of this.#layers.entries()) {
      const next = scope(() => this.#runLayer(x, layer, { kv: pages[i]!, rows: batch.rows, rotary }));
      drop(x);
      x = next;
      onHidden(x);
    }
    return x;
  }

  /** Turns what left the last layer [L, C] into what meets the head: through the final norm, and the projection if there is one. */
  final(x: Tensor): Tensor {
    const normed = this.#finalNorm ? normalise(x, this.#finalNorm) : x;
    return this.#projectOut ? product(normed, this.#projectOut) : normed;
  }

  /** [L, V] f32 of what `final` gave. */
  logits(x: Tensor): Tensor {
    const into = Tensor.empty([x.dim(0), this.#head.rows], { device: this.device });
    return packedLinear(x, this.#head, { into });
  }

  /** [L] i32: the largest logit's place, without the logits. */
  argmax(x: Tensor): Tensor {
    return packedArgmax(x, this.#head);
  }

  [Symbol.dispose](): void {
    this.weights[Symbol.dispose]();
    this.#slopes?.dispose();
    this.#rotary?.dispose();
    this.#rotary = undefined;
  }

  #embed({ ids, positions }: DecoderBatch): Tensor {
    return scope(() => {
      const places = this.#placesOf(positions);
      let x = packedRows(this.#table, ids);
      if (this.#projectIn) x = product(x, this.#projectIn, places && { residual: places });
      else if (places) x = add(x, places, x);
      if (this.#activations !== 'f32') x = cast(x, this.#activations);
      return this.#embeddingNorm ? normalise(x, this.#embeddingNorm) : x;
    });
  }

  /** What learned positions add, [R, C]. */
  #placesOf(positions: Tensor): Tensor | undefined {
    const learned = this.description.positions;
    if (learned.kind !== 'learned') return undefined;
    const [rows, C] = this.#positionTable!.shape as [number, number];
    return embedding(positions, this.#positionTable!.view([rows - learned.offset, C], learned.offset * C));
  }

  #runLayer(x: Tensor, layer: Layer, call: AttentionCall): Tensor {
    const { arrangement, mlp } = layer.description;
    const h = half(x, x, layer.attentionNorm, arrangement, (input) => this.#attend(input, layer, call));
    // Side by side, the MLP reads what attention read, and joins the same sum.
    const from = arrangement === 'parallel' ? x : h;
    return half(from, h, layer.mlpNorm, arrangement, ({ x: input, norm, residual }) => {
      const wide = product(input, layer.up, { activation: mlp.activation, ...(norm ? { norm } : {}) });
      return product(wide, layer.down, { residual });
    });
  }

  #attend({ x, norm, residual }: HalfInput, layer: Layer, { kv, rows, rotary }: AttentionCall): Tensor {
    const { heads, keyValueHeads, scale, window, headNorms } = layer.description.attention;
    const qkv = product(x, layer.queryKeyValue, norm ? { norm } : {});
    const q = pagedWrite(qkv, kv, rows, {
      heads,
      keyValueHeads,
      ...(rotary ? { rotary: { table: rotary } } : {}),
      ...(headNorms ? { queryNorm: layer.queryNorm!, keyNorm: layer.keyNorm!, eps: headNorms.eps } : {}),
    });
    drop(qkv);
    const context = pagedAttention(q, kv, rows, {
      heads,
      keyValueHeads,
      scale,
      ...(this.#slopes ? { slopes: this.#slopes } : {}),
      ...(window === undefined ? {} : { window }),
    });
    return product(context, layer.output, { residual });
  }

  #makeSlopes(heads: number): Tensor {
    return withOwner('parameters', () => keep(Tensor.from(alibiSlopes(heads), [heads], { device: this.device })));
  }

  /** The table, with rows for `positions` positions at least. Its numbers do not depend on how long it is. */
  #rotaryFor(positions: number): Tensor | undefined {
    const rotary = this.description.positions;
    if (rotary.kind !== 'rotary') return undefined;
    const have = this.#rotary?.dim(0) ?? 0;
    if (have < positions) {
      const grown = Math.min(Math.max(FIRST_POSITIONS, 2 * have, positions), this.contextTokens);
      const table = rotaryTable(rotary, grown, this.contextTokens);
      this.#rotary?.dispose();
      this.#rotary = withOwner('parameters', () =>
        keep(Tensor.from(table, [grown, rotary.size], { device: this.device })),
      );
    }
    return this.#rotary!;
  }
}

interface AttentionCall {
  readonly kv: PagedKeyValues;
  readonly rows: PagedRows;
  readonly rotary: Tensor | undefined;
}

/** What one half of a layer, attention or MLP, reads and is added to. */
interface HalfInput {
  readonly x: Tensor;
  /** Still to be applied to x. */
  readonly norm: RowNorm | undefined;
  readonly residual: Tensor;
}

/** Runs one half of a layer on `x`, with its norm where the arrangement has it; `sum` is what its result joins. */
function half(
  x: Tensor,
  sum: Tensor,
  norm: RowNorm,
  arrangement: DecoderLayer['arrangement'],
  run: (input: HalfInput) => Tensor,
): Tensor {
  if (arrangement === 'post_norm') return normalise(run({ x, norm: undefined, residual: sum }), norm);
  if (arrangement !== 'pre_norm_residual') return run({ x, norm, residual: sum });
  const n = normalise(x, norm);
  return run({ x: n, norm: undefined, residual: n });
}

function normalise(x: Tensor, { kind, weight, bias, eps }: RowNorm): Tensor {
  return kind === 'rms' ? rmsNorm(x, weight, { eps }).y : layerNorm(x, weight, bias!, { eps }).y;
}

function product(x: Tensor, { weight, bias }: PackedLayer, options: PackedLinearOptions = {}): Tensor {
  return packedLinear(x, weight, bias ? { ...options, bias } : options);
}
