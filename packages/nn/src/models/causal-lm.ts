/** What training and evaluation know of a language model: no family by name. (Inference runs `DecoderDescription`s.) */
import type { Tensor } from '@ds/core-native';
import type { Unit, UnitUse } from '../module/unit';

/** Sizes and token ids that a model's config.json says. */
export interface CausalLMShape {
  readonly vocabSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly headSize: number;
  readonly eosTokenId: number;
  readonly padTokenId: number;
}

export interface CausalLMBatch {
  /** [B, T] i32 */
  ids: Tensor;
  /** [B, T] u8: 1 where a token is real. Absent: all are. */
  mask?: Tensor;
}

export interface CausalLMTraining extends CausalLMBatch {
  /** [B, T] i32: the token that follows each one; -100 is not counted. */
  targets: Tensor;
  /** The gradients are those of scale * sum(losses). */
  scale: number;
  /** Seeds dropout; every (step, micro-batch, rank) needs another one. Without it there is no dropout. */
  dropoutSeed?: number;
}

/** A decoder that predicts the next token. It holds no weights: an engine puts them into its parameters. */
export interface CausalLM extends Disposable {
  readonly shape: CausalLMShape;
  /** In the order of their first use. */
  readonly units: readonly Unit[];
  /** The fixed order in which units act in a forward pass. */
  readonly uses: readonly UnitUse[];
  /** Gives the losses [B*T] f32, one a token; records on the current tape. */
  loss(batch: CausalLMTraining): Tensor;
  /** Gives the last hidden states, [B*T, C]; `onHidden` hears every stage by name. */
  hidden(batch: CausalLMBatch, onHidden?: (name: string, x: Tensor) => void): Tensor;
  /** Gives the logits [R, V] f32 of last hidden states [R, C]. */
  logits(x: Tensor): Tensor;
}
