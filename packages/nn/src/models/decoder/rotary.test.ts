/** Tables of rotary positions against the formulas of their papers, worked out here in another way, and golden constants. */

import { ConfigReader } from './config-reader';
import type { Rotary } from './description';
import { type RotaryScaling, rotaryAttentionFactor, rotaryFrequencies, rotaryTable } from './rotary';
import { readRotary } from './rotary-config';

const rotary = (scaling: RotaryScaling, rest: Partial<Rotary> = {}): Rotary => ({
  size: 8,
  theta: 10_000,
  scaling,
  ...rest,
});
const plain = [1, 0.1, 0.01, 0.001]; // 10000^(-2i/8)

function expectClose(got: ArrayLike<number>, wanted: readonly number[], digits = 12): void {
  expect(got.length).toBe(wanted.length);
  for (const [i, value] of wanted.entries()) expect(got[i]! / value).toBeCloseTo(1, digits);
}

describe('frequencies', () => {
  it('fall from 1 by powers of theta', () => {
    expectClose(rotaryFrequencies(rotary({ kind: 'none' }), 100), plain);
  });

  it('linear: are divided by the factor', () => {
    expectClose(
      rotaryFrequencies(rotary({ kind: 'linear', factor: 4 }), 100),
      plain.map((f) => f / 4),
    );
  });

  it('dynamic: stay up to the original length; beyond it the slowest is slower by the stretch, the fastest stays', () => {
    const scaling = { kind: 'dynamic', factor: 2, original: 64 } as const;
    expectClose(rotaryFrequencies(rotary(scaling), 64), plain);
    expectClose(rotaryFrequencies(rotary(scaling), 10), plain);
    // L = 128: stretch 2 * 128 / 64 - 1 = 3, theta' = theta * 3^(8/6): pair i slower by 3^(i/3)
    expectClose(
      rotaryFrequencies(rotary(scaling), 128),
      plain.map((f, i) => f / 3 ** (i / 3)),
    );
  });

  it('llama3: long waves are divided by the factor, short ones left, those between mixed', () => {
    // wave lengths 6.283, 62.83, 628.3, 6283; original 1000: bounds 1000 / 4 = 250 and 1000 / 1 = 1000
    const scaling = {
      kind: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      original: 1000,
    } as const;
    const smooth = (1000 / (2 * Math.PI * 100) - 1) / 3;
    const mixed = ((1 - smooth) * 0.01) / 8 + smooth * 0.01;
    expectClose(rotaryFrequencies(rotary(scaling), 8000), [1, 0.1, mixed, 0.001 / 8]);
  });

  it('yarn: a ramp between the pairs that turn betaFast and betaSlow times', () => {
    // turns of pair i over 1000 tokens: 159, 15.9, 1.59, 0.159. 32 turns: at pair 0.697, 1 turn: at 2.202; whole: 0 to 3
    const scaling = {
      kind: 'yarn',
      factor: 4,
      betaFast: 32,
      betaSlow: 1,
      original: 1000,
      attentionFactor: 1,
      truncate: true,
    } as const;
    const ramp = [0, 1 / 3, 2 / 3, 1];
    const mixed = (at: readonly number[]) => plain.map((f, i) => f * (1 - at[i]!) + (f / 4) * at[i]!);
    expectClose(rotaryFrequencies(rotary(scaling), 4000), mixed(ramp));
    const pairOf = (turns: number) => (4 * Math.log(1000 / (2 * Math.PI * turns))) / Math.log(10_000);
    expect(pairOf(32)).toBeCloseTo(0.6967, 4);
    const [from, to] = [pairOf(32), pairOf(1)];
    const untruncated = plain.map((_, i) => Math.min(1, Math.max(0, (i - from) / (to - from))));
    expectClose(rotaryFrequencies(rotary({ ...scaling, truncate: false }), 4000), mixed(untruncated));
  });

  it('longrope: short factors up to the original length, long ones for a longer context', () => {
    const scaling = {
      kind: 'longrope',
      short: [1, 1.1, 1.2, 1.3],
      long: [1, 2, 4, 8],
      original: 4096,
      attentionFactor: 1,
    } as const;
    const divided = (factors: readonly number[]) => plain.map((f, i) => f / factors[i]!);
    expectClose(rotaryFrequencies(rotary(scaling), 4096), divided(scaling.short));
    expectClose(rotaryFrequencies(rotary(scaling), 4097), divided(scaling.long));
  });
});

describe('a table', () => {
  it('holds cosines, then sines, of every position', () => {
    const table = rotaryTable({ size: 4, theta: 100, scaling: { kind: 'none' } }, 3, 3);
    const row = (p: number) => [Math.cos(p), Math.cos(p / 10), Math.sin(p), Math.sin(p / 10)].map(Math.fround);
    expect([...table]).toEqual([0, 1, 2].flatMap(row));
    expect(rotaryTable({ size: 4, theta: 100, scaling: { kind: 'none' } }, 0, 3)).toHaveLength(0);
  });

  it('is multiplied by the attention factor', () => {
    const scaling = { kind: 'longrope', short: [1, 1], long: [1, 1], original: 4, attentionFactor: 1.5 } as const;
    expect([...rotaryTable({ size: 4, theta: 100, scaling }, 1, 4)]).toEqual([1.5, 1.5, 0, 0]);
  });
});

describe('the attention factor of a config', () => {
  const factorOf = (rope: object, limit = 131072, top = {}) => {
    const json = { max_position_embeddings: limit, rope_scaling: rope, ...top };
    return rotaryAttentionFactor(readRotary(new ConfigReader(json, 'config.json'), { headSize: 4 }).rotary);
  };
  const factors = { short_factor: [1, 1], long_factor: [2, 2] };

  it('yarn: 0.1 ln(factor) + 1, or what the file says', () => {
    expect(factorOf({ type: 'yarn', factor: 16 })).toBeCloseTo(0.1 * Math.log(16) + 1, 14);
    expect(factorOf({ type: 'yarn', factor: 16, attention_factor: 1.25 })).toBe(1.25);
    expect(factorOf({ type: 'yarn', factor: 40, mscale: 1, mscale_all_dim: 1 })).toBe(1);
    const quotient = (0.1 * 0.75 * Math.log(40) + 1) / (0.1 * 0.5 * Math.log(40) + 1);
    expect(factorOf({ type: 'yarn', factor: 40, mscale: 0.75, mscale_all_dim: 0.5 })).toBeCloseTo(quotient, 14);
  });

  it('longrope: sqrt(1 + ln(stretch) / ln(original)), by either name, original inside or outside', () => {
    const wanted = Math.sqrt(1 + Math.log(32) / Math.log(4096));
    for (const type of ['longrope', 'su'])
      expect(factorOf({ type, ...factors }, 131072, { original_max_position_embeddings: 4096 })).toBeCloseTo(
        wanted,
        14,
      );
    expect(factorOf({ rope_type: 'longrope', ...factors, original_max_position_embeddings: 4096 })).toBeCloseTo(
      wanted,
      14,
    );
    expect(factorOf({ rope_type: 'longrope', ...factors }, 4096)).toBe(1);
  });

  it('of every other kind is 1', () => {
    expect(factorOf({ type: 'linear', factor: 4 })).toBe(1);
    expect(factorOf({ type: 'default' })).toBe(1);
  });
});
