/**
 * A decoder-only transformer as data: sizes, switches, and for every weight the stored tensors that it is made of.
 *
 * A family turns a config.json into one of these; whoever runs models knows this type and no family. Names of tensors are
 * those of the released files, without the family's prefix. A linear layer is y = x W^T + b with W [out, in].
 *
 *     x = norm?(project_in?(table[id]) + positions?)
 *     for each layer, by its arrangement:
 *       pre_norm           h = x + attention(norm(x)),   x = h + mlp(norm'(h))
 *       pre_norm_residual  n = norm(x), h = n + attention(n),   n' = norm'(h), x = n' + mlp(n')
 *       post_norm          h = norm(x + attention(x)),   x = norm'(h + mlp(h))
 *       parallel           x = x + attention(norm(x)) + mlp(norm'(x))
 *     logits = project_out?(norm?(x)) head^T
 */
import type { RotaryScaling } from './rotary';

/** Consecutive rows of a weight, and where they are stored: in `runs` runs of `run` rows, `stride` apart, from `first` on. */
export interface StoredRows {
  /** The file's name without the family's prefix. */
  readonly tensor: string;
  /** The file's shape. */
  readonly shape: readonly number[];
  /** The file holds [in, out] (GPT-2's Conv1D): `rows` below are then its columns. */
  readonly transposed: boolean;
  readonly first: number;
  readonly run: number;
  readonly stride: number;
  readonly runs: number;
}

/** A weight [rows, columns] or [rows], made of parts that follow each other by rows. */
export interface StoredWeight {
  readonly shape: readonly number[];
  readonly parts: readonly StoredRows[];
}

export interface LinearLayer {
  readonly weight: StoredWeight;
  readonly bias: StoredWeight | undefined;
}

/** Normalisation over the last dim: `layer` has a bias, `rms` none. */
export type NormLayer =
  | { readonly kind: 'layer'; readonly eps: number; readonly weight: StoredWeight; readonly bias: StoredWeight }
  | { readonly kind: 'rms'; readonly eps: number; readonly weight: StoredWeight; readonly bias: undefined };

/** gelu: the tanh form; gelu_exact: with erf. */
export type Activation = 'relu' | 'silu' | 'gelu' | 'gelu_exact';

export interface AttentionLayer {
  /** H: query head h reads key-value head h / (H / G). */
  readonly heads: number;
  /** G */
  readonly keyValueHeads: number;
  /** D */
  readonly headSize: number;
  /** Of the products of queries and keys. */
  readonly scale: number;
  /** Tokens that a token sees, itself included; undefined: all before it. */
  readonly window: number | undefined;
  /** [(H + 2 G) D, C]: queries, then keys, then values, head by head. */
  readonly queryKeyValue: LinearLayer;
  /** RMS norms of each head's query and key, in front of the rotation. */
  readonly headNorms: { readonly query: StoredWeight; readonly key: StoredWeight; readonly eps: number } | undefined;
  /** [C, H D] */
  readonly output: LinearLayer;
}

/** plain: down(act(up(x))). gated: down(act(gate(x)) * up(x)), `up` [2 F, C] holding the gate's rows first. */
export interface MlpLayer {
  readonly kind: 'plain' | 'gated';
  readonly activation: Activation;
  readonly up: LinearLayer;
  readonly down: LinearLayer;
}

export interface DecoderLayer {
  readonly arrangement: 'pre_norm' | 'pre_norm_residual' | 'post_norm' | 'parallel';
  readonly attentionNorm: NormLayer;
  readonly attention: AttentionLayer;
  readonly mlpNorm: NormLayer;
  readonly mlp: MlpLayer;
}

/** Rotation of the first `size` of a head's elements, element i with element i + size / 2. */
export interface Rotary {
  readonly size: number;
  readonly theta: number;
  readonly scaling: RotaryScaling;
}

/** How a token knows where it stands. `learned`: row position + offset of a table [rows, C], added to the embedding. */
export type Positions =
  | { readonly kind: 'alibi' }
  | ({ readonly kind: 'rotary' } & Rotary)
  | { readonly kind: 'learned'; readonly table: StoredWeight; readonly offset: number };

/** How long a sequence may be. */
export interface ContextLimit {
  /** Unless somebody asks for more. */
  readonly tokens: number;
  /** What one may ask for. More than `tokens` where the scaling of positions depends on it (`rotary.ts`). */
  readonly most: number;
}

export interface DecoderDescription {
  /** `model_type` */
  readonly family: string;
  readonly vocabSize: number;
  /** C */
  readonly hiddenSize: number;
  /** Undefined: no limit (ALiBi). */
  readonly context: ContextLimit | undefined;
  /** Tokens that end a text, as config.json says. */
  readonly endTokenIds: readonly number[];
  readonly embedding: {
    /** [V, E]; E is C, unless the embedding is projected. */
    readonly table: StoredWeight;
    /** [C, E] */
    readonly projectIn: LinearLayer | undefined;
    readonly norm: NormLayer | undefined;
  };
  readonly positions: Positions;
  readonly layers: readonly DecoderLayer[];
  readonly finalNorm: NormLayer | undefined;
  readonly head: {
    /** [E, C], behind the final norm */
    readonly projectOut: LinearLayer | undefined;
    /** [V, E]; undefined: tied to the embedding's table */
    readonly weight: StoredWeight | undefined;
  };
  /** What stands in front of the names in some files, and not in others. */
  readonly prefix: string;
  /** Stored tensors that are no weights, or copies of some: masks, frequencies, a tied head. */
  readonly ignored: readonly RegExp[];
}
