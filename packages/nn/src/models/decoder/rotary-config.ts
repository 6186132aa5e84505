/**
 * Reads rotary positions from a config.json, by the keys of transformers 5 (`rope_parameters`) and by the older ones
 * (`rope_theta`, `rope_scaling`, GPT-NeoX's `rotary_pct` and `rotary_emb_base`).
 */
import type { ConfigReader } from './config-reader';
import type { ContextLimit, Rotary } from './description';
import type { RotaryScaling } from './rotary';

/** Keys of every kind of scaling; `finetuned` says how a model was made, not how it computes. */
const commonKeys = ['rope_type', 'type', 'rope_theta', 'partial_rotary_factor', 'finetuned'];
const originalKey = 'original_max_position_embeddings';

const keysOf: Readonly<Record<string, readonly string[]>> = {
  default: [originalKey],
  linear: ['factor', originalKey],
  dynamic: ['factor', originalKey],
  llama3: ['factor', 'low_freq_factor', 'high_freq_factor', originalKey],
  // biome-ignore format: one list
  yarn: ['factor', 'beta_fast', 'beta_slow', 'attention_factor', 'mscale', 'mscale_all_dim', 'truncate', originalKey],
  longrope: ['factor', 'short_factor', 'long_factor', 'attention_factor', originalKey],
};

/** `su` is what the first Phi-3 files called longrope. */
const aliases: Readonly<Record<string, string>> = { su: 'longrope' };

export interface RotaryDefaults {
  readonly headSize: number;
  readonly theta?: number;
  /** Share of a head that is rotated. */
  readonly share?: number;
}

/** @throws FORMAT; UNSUPPORTED naming a kind of scaling, or a key of one, that is not built */
export function readRotary(config: ConfigReader, defaults: RotaryDefaults): { rotary: Rotary; context: ContextLimit } {
  const rope = config.section('rope_parameters') ?? config.section('rope_scaling');
  const pick = (reader: ConfigReader, keys: readonly string[], fallback: number) => reader.number(keys, fallback);
  const topTheta = pick(config, ['rope_theta', 'rotary_emb_base'], defaults.theta ?? 10_000);
  const theta = rope ? pick(rope, ['rope_theta'], topTheta) : topTheta;
  const topShare = pick(config, ['partial_rotary_factor', 'rotary_pct'], defaults.share ?? 1);
  const share = rope ? pick(rope, ['partial_rotary_factor'], topShare) : topShare;
  const size = Math.floor(defaults.headSize * share);
  if (!(size >= 2 && size % 2 === 0 && size <= defaults.headSize))
    config.refuse('FORMAT', `an even number of rotated elements of ${defaults.headSize} a head`, `${size}`);
  if (!(theta > 0)) config.refuse('FORMAT', 'rope_theta > 0', String(theta));
  const limit = config.count('max_position_embeddings');
  const { scaling, context } = rope
    ? readScaling(rope, { config, size, limit })
    : { scaling: { kind: 'none' } as const, context: fixed(limit) };
  return { rotary: { size, theta, scaling }, context };
}

interface Around {
  readonly config: ConfigReader;
  readonly size: number;
  /** max_position_embeddings */
  readonly limit: number;
}

function readScaling(rope: ConfigReader, around: Around): { scaling: RotaryScaling; context: ContextLimit } {
  const { config, limit } = around;
  const given = rope.value(['rope_type', 'type'])?.value ?? 'default';
  const kind = aliases[String(given)] ?? String(given);
  const known = Object.hasOwn(keysOf, kind) ? keysOf[kind]! : unknownKind(rope, given);
  for (const key of Object.keys(rope.json))
    if (![...commonKeys, ...known].includes(key))
      rope.refuse('UNSUPPORTED', `the keys ${known.join(', ')} for rope_type ${JSON.stringify(kind)}`, key);
  const original = rope.optionalCount(originalKey) ?? config.optionalCount(originalKey) ?? limit;
  switch (kind) {
    case 'linear': {
      const factor = readFactor(rope);
      return { scaling: { kind, factor }, context: fixed(Math.floor(limit * factor)) };
    }
    case 'dynamic': {
      const factor = readFactor(rope);
      if (around.size < 4) rope.refuse('FORMAT', 'at least 4 rotated elements for dynamic', String(around.size));
      return {
        scaling: { kind, factor, original },
        context: { tokens: original, most: Math.floor(original * factor) },
      };
    }
    case 'llama3': {
      const [lowFrequencyFactor, highFrequencyFactor] = [
        rope.number('low_freq_factor'),
        rope.number('high_freq_factor'),
      ];
      if (!(lowFrequencyFactor < highFrequencyFactor))
        rope.refuse('FORMAT', 'low_freq_factor < high_freq_factor', `${lowFrequencyFactor}, ${highFrequencyFactor}`);
      const scaling = { kind, factor: readFactor(rope), lowFrequencyFactor, highFrequencyFactor, original } as const;
      return { scaling, context: fixed(limit) };
    }
    case 'yarn': {
      const factor = readFactor(rope, limit / original);
      return { scaling: readYarn(rope, factor, original), context: fixed(Math.floor(original * factor)) };
    }
    case 'longrope':
      return {
        scaling: readLongRope(rope, around, original),
        context: { tokens: Math.min(original, limit), most: limit },
      };
    default:
      return { scaling: { kind: 'none' }, context: fixed(limit) };
  }
}

function unknownKind(rope: ConfigReader, given: unknown): never {
  return rope.refuse(
    'UNSUPPORTED',
    `rope_type ${Object.keys(keysOf).join(', ')}`,
    JSON.stringify(given),
    'other ways to stretch positions are not built',
  );
}

function readFactor(rope: ConfigReader, fallback?: number): number {
  const factor = rope.number('factor', fallback);
  return factor >= 1 ? factor : rope.refuse('FORMAT', 'factor >= 1', String(factor));
}

function readYarn(rope: ConfigReader, factor: number, original: number): RotaryScaling {
  const mscale = rope.number('mscale', 0);
  const mscaleAllDim = rope.number('mscale_all_dim', 0);
  // eq. 23; DeepSeek's files name the weight of the logarithm, for the table and for the scores, as a quotient.
  const magnitude = (weight: number) => (factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1);
  const byPaper = mscale !== 0 && mscaleAllDim !== 0 ? magnitude(mscale) / magnitude(mscaleAllDim) : magnitude(1);
  return {
    kind: 'yarn',
    factor,
    original,
    betaFast: rope.number('beta_fast', 32),
    betaSlow: rope.number('beta_slow', 1),
    attentionFactor: rope.number('attention_factor', byPaper),
    truncate: rope.flag('truncate', true),
  };
}

function readLongRope(rope: ConfigReader, { size, limit }: Around, original: number): RotaryScaling {
  const factors = (key: string) => {
    const list = rope.numbers(key);
    if (list.length === size / 2) return list;
    return rope.refuse('FORMAT', `${size / 2} numbers for ${key}, one a rotated pair`, String(list.length));
  };
  const stretch = rope.number('factor', limit / original);
  const byPaper = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
  return {
    kind: 'longrope',
    short: factors('short_factor'),
    long: factors('long_factor'),
    original,
    attentionFactor: rope.number('attention_factor', byPaper),
  };
}

function fixed(tokens: number): ContextLimit {
  return { tokens, most: tokens };
}
