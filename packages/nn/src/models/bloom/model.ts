/**
 * BLOOM (Le Scao et al. 2022): a decoder with ALiBi, a layer norm behind the embedding, biases everywhere and a tied head.
 *
 * The model is a description: units, their parameters, and the order in which they act. It holds no memory of its own
 * but the ALiBi slopes and compiled layouts; an engine puts the parameters in place (see `Parameter`).
 */
import { adopt, alibiSlopes, cast, dtypeBytes, keep, linear, Tensor } from '@ds/core-native';
import { type AttentionParameters, attentionBlock } from '../../functional/attention-block';
import { embedding } from '../../functional/embedding';
import { headLoss } from '../../functional/head-loss';
import { layerNorm, type NormParameters } from '../../functional/layer-norm';
import type { LinearParameters } from '../../functional/linear';
import { type MlpParameters, mlpBlock } from '../../functional/mlp-block';
import { type Initializer, Parameter } from '../../module/parameter';
import { runUse, type Unit, type UnitUse } from '../../module/unit';
import { LayoutCache } from '../../sparse/layout-cache';
import type { SparsityConfig } from '../../sparse/sparsity-config';
import type { CausalLM, CausalLMBatch, CausalLMShape, CausalLMTraining } from '../causal-lm';
import type { BloomConfig } from './config';

interface Block {
  use: UnitUse;
  attention: AttentionParameters;
  mlp: MlpParameters;
}

export class Bloom implements CausalLM {
  readonly config: BloomConfig;
  readonly shape: CausalLMShape;
  /** In the order of their first use. */
  readonly units: readonly Unit[];
  /** The fixed order in which units act in a forward pass. */
  readonly uses: readonly UnitUse[];
  readonly #table: Parameter;
  readonly #embeddingNorm: NormParameters;
  readonly #blocks: readonly Block[];
  readonly #finalNorm: NormParameters;
  readonly #slopes = new Map<string, Tensor>();
  #layouts: LayoutCache | undefined;

  constructor(config: BloomConfig) {
    this.config = config;
    const { vocabSize: V, hiddenSize: C, layers: L, initializerRange: std } = config;
    this.shape = { ...config, headSize: C / config.heads };
    const units: Unit[] = [];
    const uses: UnitUse[] = [];
    const unit = (name: string, parameters: Parameter[]): Unit => {
      units.push({ name, parameters });
      return units.at(-1)!;
    };
    const use = (of: Unit, rest: Partial<UnitUse> = {}): UnitUse => {
      uses.push({ index: uses.length, unit: of, backwardReadsWeights: true, gradientIn: 'backward', ...rest });
      return uses.at(-1)!;
    };
    const weight = (name: string, shape: number[], scale = std) => new Parameter({ name, shape, init: normal(scale) });

    this.#table = weight('word_embeddings.weight', [V, C]);
    const tableUnit = unit('word_embeddings', [this.#table]);
    use(tableUnit, { backwardReadsWeights: false });
    this.#embeddingNorm = normParameters('word_embeddings_layernorm', C, config);
    use(unit('word_embeddings_layernorm', parametersOf(this.#embeddingNorm)));

    // The two projections that write into the residual stream start smaller, by the root of their number (Megatron).
    const outputStd = std / Math.sqrt(2 * L);
    this.#blocks = Array.from({ length: L }, (_, i) => {
      const at = `h.${i}.`;
      const linearLayer = (name: string, N: number, K: number, scale?: number): LinearParameters => ({
        weight: weight(`${at}${name}.weight`, [N, K], scale),
        bias: new Parameter({ name: `${at}${name}.bias`, shape: [N], init: constant(0) }),
      });
      const residualAfterNorm = config.residualAfterNorm;
      const attention = {
        norm: normParameters(`${at}input_layernorm`, C, config),
        queryKeyValue: linearLayer('self_attention.query_key_value', 3 * C, C),
        dense: linearLayer('self_attention.dense', C, C, outputStd),
        heads: config.heads,
        residualAfterNorm,
      };
      const mlp = {
        norm: normParameters(`${at}post_attention_layernorm`, C, config),
        up: linearLayer('mlp.dense_h_to_4h', 4 * C, C),
        down: linearLayer('mlp.dense_4h_to_h', C, 4 * C, outputStd),
        residualAfterNorm,
      };
      const parameters = [attention.norm, attention.queryKeyValue, attention.dense, mlp.norm, mlp.up, mlp.down];
      const blockUse = use(unit(`h.${i}`, parameters.flatMap(parametersOf)));
      return { use: blockUse, attention, mlp };
    });

    this.#finalNorm = normParameters('ln_f', C, config);
    use(unit('ln_f', parametersOf(this.#finalNorm)));
    use(tableUnit, { backwardReadsWeights: false, gradientIn: 'forward' });
    this.units = units;
    this.uses = uses;
  }

  /**
   * Which blocks of earlier tokens each block of tokens sees; undefined (the default): all. Lengths must then be multiples of its
   * block. Attention is causal whatever the pattern says.
   * @throws CONFIG for a pattern that cannot be
   */
  get sparseAttention(): SparsityConfig | undefined {
    return this.#layouts?.config;
  }

  set sparseAttention(pattern: SparsityConfig | undefined) {
    const layouts = pattern && new LayoutCache(pattern, this.config.heads);
    this.#layouts?.[Symbol.dispose]();
    this.#layouts = layouts;
  }

  get parameters(): Parameter[] {
    return this.units.flatMap((unit) => unit.parameters);
  }

  /** Gives the losses [B*T] f32, one a token; records on the current tape. */
  loss(batch: CausalLMTraining): Tensor {
    const x = this.hidden(batch);
    const losses = runUse(this.uses.at(-1)!, () =>
      headLoss(x, this.#table, batch.targets.view([batch.targets.numel]), { scale: batch.scale }),
    );
    keep(x).dispose();
    return losses;
  }

  /**
   * Gives the hidden states behind the final norm, [B*T, C].
   * @param onHidden hears every stage by name (word_embeddings, word_embeddings_layernorm, h.0, ..., ln_f); for inspection
   */
  hidden(batch: CausalLMBatch, onHidden: (name: string, x: Tensor) => void = () => {}): Tensor {
    const ids = batch.ids.view([batch.ids.numel]);
    let x = keep(runUse(this.uses[0]!, () => embedding(ids, this.#table)));
    onHidden('word_embeddings', x);
    const next = (use: UnitUse, fn: () => Tensor) => {
      const y = keep(runUse(use, fn));
      x.dispose(); // the tape holds it where backward needs it
      x = y;
      onHidden(use.unit.name, x);
    };
    next(this.uses[1]!, () => layerNorm(x, this.#embeddingNorm));
    this.#blocks.forEach((b, i) => {
      next(b.use, () => this.#block(x, i, batch));
    });
    next(this.uses.at(-2)!, () => layerNorm(x, this.#finalNorm));
    return adopt(x);
  }

  /** Gives the logits [R, V] of hidden states [R, C]: f32 beside 16-bit weights too, with the digits these leave. */
  logits(x: Tensor): Tensor {
    return runUse(this.uses.at(-1)!, () => {
      const { y } = linear(x, this.#table.value);
      return dtypeBytes[y.dtype] < 4 ? cast(y, 'f32') : y;
    });
  }

  /** Releases what the model holds itself: the ALiBi slopes and the layouts of sparse attention. */
  [Symbol.dispose](): void {
    this.#layouts?.[Symbol.dispose]();
    for (const slopes of this.#slopes.values()) slopes.dispose();
    this.#slopes.clear();
  }

  #block(x: Tensor, i: number, batch: CausalLMBatch & { dropoutSeed?: number }): Tensor {
    const { attention, mlp } = this.#blocks[i]!;
    const { hiddenDropout, attentionDropout } = this.config;
    const seed = batch.dropoutSeed;
    // Every place in the model draws from its own range of random numbers.
    const choice = (p: number, place: number) =>
      p > 0 && seed !== undefined ? { p, seed, offset: (i * 3 + place) * 2 ** 40 } : undefined;
    const inAttention = choice(attentionDropout, 0);
    const afterAttention = choice(hiddenDropout, 1);
    const afterMlp = choice(hiddenDropout, 2);
    const h = attentionBlock(x, attention, {
      batch: batch.ids.dim(0),
      slopes: this.#slopesFor(x),
      ...(batch.mask ? { mask: batch.mask } : {}),
      ...(this.#layouts ? { layout: this.#layouts.of(batch.ids.dim(1)) } : {}),
      ...(inAttention ? { attentionDropout: inAttention } : {}),
      ...(afterAttention ? { hiddenDropout: afterAttention } : {}),
    });
    return mlpBlock(h, mlp, afterMlp ? { hiddenDropout: afterMlp } : {});
  }

  /** The slopes beside activations `x`: f32, or f64 beside f64. */
  #slopesFor({ device, dtype }: Tensor): Tensor {
    const wide = dtype === 'f64' ? 'f64' : 'f32';
    const key = `${device.name} ${wide}`;
    let slopes = this.#slopes.get(key);
    if (!slopes) {
      slopes = keep(Tensor.from(alibiSlopes(this.config.heads), [this.config.heads], { device, dtype: wide }));
      this.#slopes.set(key, slopes);
    }
    return slopes;
  }
}

function normal(std: number): Initializer {
  return { kind: 'normal', std };
}

function constant(value: number): Initializer {
  return { kind: 'constant', value };
}

function normParameters(name: string, C: number, config: BloomConfig): NormParameters {
  return {
    weight: new Parameter({ name: `${name}.weight`, shape: [C], init: constant(1) }),
    bias: new Parameter({ name: `${name}.bias`, shape: [C], init: constant(0) }),
    eps: config.layerNormEpsilon,
  };
}

function parametersOf(layer: { weight: Parameter; bias: Parameter }): Parameter[] {
  return [layer.weight, layer.bias];
}
