/**
 * Tables for rotary positions (Su et al. 2021, "RoFormer", eq. 34), with the scalings that stretch them over longer texts.
 *
 * Of `size` rotated elements, pair i turns at position p by the angle p f_i, f_i = theta^(-2 i / size). The scalings change
 * f; yarn and longrope multiply cosine and sine by an attention factor, too. Two of them depend on how long texts may get:
 *
 * - dynamic: up to the original length nothing changes; for a context limit L beyond it, theta is that of a text of length L.
 * - longrope: `short` factors up to the original length, `long` ones beyond it.
 *
 * transformers chooses by the length of the text at hand, so that keys which lie in a cache turn stale when a text passes the
 * original length. Here, as in vLLM, the context limit that a model is loaded with decides, once, for every text: an answer
 * never depends on how it grew. The default limit is then the original length, where both agree.
 */
import type { Rotary } from './description';

export type RotaryScaling =
  | { readonly kind: 'none' }
  /** Positions divided by a factor. Source: Chen et al. 2023, "Extending Context Window ... via Positional Interpolation". */
  | { readonly kind: 'linear'; readonly factor: number }
  /** "NTK-aware" theta. Source: Peng et al. 2023, "YaRN", sec. 3.1 and app. A.2 (dynamic). */
  | { readonly kind: 'dynamic'; readonly factor: number; readonly original: number }
  /** Slow pairs divided by a factor, fast ones left, a ramp between. Source: Llama 3.1's released configuration. */
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly original: number;
    }
  /** The same idea with a ramp over the pairs. Source: Peng et al. 2023, "YaRN", eqs. 17-23. */
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      readonly original: number;
      readonly attentionFactor: number;
      /** Whether the ramp begins and ends at whole pairs. */
      readonly truncate: boolean;
    }
  /** A searched factor for each pair. Source: Ding et al. 2024, "LongRoPE", sec. 3. */
  | {
      readonly kind: 'longrope';
      readonly short: readonly number[];
      readonly long: readonly number[];
      readonly original: number;
      readonly attentionFactor: number;
    };

/** f_i of every pair, for texts of up to `contextTokens`. */
export function rotaryFrequencies({ size, theta, scaling }: Rotary, contextTokens: number): Float64Array {
  const base = scaling.kind === 'dynamic' ? dynamicTheta(size, theta, scaling, contextTokens) : theta;
  const frequencies = Float64Array.from({ length: size / 2 }, (_, i) => base ** ((-2 * i) / size));
  switch (scaling.kind) {
    case 'none':
    case 'dynamic':
      return frequencies;
    case 'linear':
      return frequencies.map((f) => f / scaling.factor);
    case 'llama3':
      return frequencies.map((f) => llama3Frequency(f, scaling));
    case 'yarn': {
      const kept = yarnRamp({ size, theta, scaling });
      return frequencies.map((f, i) => f * kept[i]! + (f / scaling.factor) * (1 - kept[i]!));
    }
    case 'longrope': {
      const factors = contextTokens > scaling.original ? scaling.long : scaling.short;
      return frequencies.map((f, i) => f / factors[i]!);
    }
  }
}

/** What cosine and sine are multiplied by. */
export function rotaryAttentionFactor({ scaling }: Rotary): number {
  return scaling.kind === 'yarn' || scaling.kind === 'longrope' ? scaling.attentionFactor : 1;
}

/**
 * Gives cosines and sines of positions 0 .. positions - 1, computed in f64: [positions, size], in each row those size / 2
 * cosines, then the sines.
 *
 * @param contextTokens the longest text that they will serve
 */
export function rotaryTable(rotary: Rotary, positions: number, contextTokens: number): Float32Array {
  const frequencies = rotaryFrequencies(rotary, contextTokens);
  const factor = rotaryAttentionFactor(rotary);
  const half = frequencies.length;
  const table = new Float32Array(positions * 2 * half);
  for (let p = 0; p < positions; p++)
    for (let i = 0; i < half; i++) {
      const angle = p * frequencies[i]!;
      table[p * 2 * half + i] = factor * Math.cos(angle);
      table[p * 2 * half + half + i] = factor * Math.sin(angle);
    }
  return table;
}

type Of<K extends RotaryScaling['kind']> = Extract<RotaryScaling, { kind: K }>;

function dynamicTheta(size: number, theta: number, { factor, original }: Of<'dynamic'>, contextTokens: number): number {
  const stretch = (factor * Math.max(contextTokens, original)) / original - (factor - 1);
  return theta * stretch ** (size / (size - 2));
}

function llama3Frequency(f: number, scaling: Of<'llama3'>): number {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, original } = scaling;
  const turns = (original * f) / (2 * Math.PI); // full turns over the original length
  if (turns < low) return f / factor;
  if (turns > high) return f;
  const kept = (turns - low) / (high - low);
  return (1 - kept) * (f / factor) + kept * f;
}

/** The share of each pair's own frequency: 1 for fast pairs, 0 for slow ones. */
function yarnRamp({ size, theta, scaling }: Rotary & { scaling: Of<'yarn'> }): Float64Array {
  const { betaFast, betaSlow, original, truncate } = scaling;
  const pairOfTurns = (turns: number) => (size * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const first = pairOfTurns(betaFast);
  const last = pairOfTurns(betaSlow);
  const from = Math.max(0, truncate ? Math.floor(first) : first);
  const to = Math.min(size - 1, truncate ? Math.ceil(last) : last);
  const width = to === from ? 0.001 : to - from;
  return Float64Array.from({ length: size / 2 }, (_, i) => 1 - Math.min(1, Math.max(0, (i - from) / width)));
}
