import { ConfigError, type ConfigProblem } from './config-error';
import { parseDeepSpeedConfig } from './deepspeed-config';

const optimizerOf = (optimizer: object) =>
  parseDeepSpeedConfig({ train_batch_size: 8, optimizer }, { world: 1 }).optimizer;

function problemsOf(optimizer: object): readonly ConfigProblem[] {
  try {
    optimizerOf(optimizer);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe('the optimizer of a config', () => {
  it("has DeepSpeed's defaults for its type", () => {
    const corrected = { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, biasCorrection: true };
    expect(optimizerOf({ type: 'AdamW' })).toEqual({ type: 'Adam', ...corrected, decoupledWeightDecay: true });
    expect(optimizerOf({ type: 'Lamb' })).toEqual({
      type: 'Lamb',
      ...corrected,
      minCoefficient: 0.01,
      maxCoefficient: 10,
    });
    expect(optimizerOf({ type: 'Lion' })).toEqual({ type: 'Lion', lr: 1e-3, beta1: 0.9, beta2: 0.99, weightDecay: 0 });
  });

  it('reads every key of Lamb and Lion, whose names stand in any case', () => {
    const common = { lr: 2e-4, betas: [0.8, 0.95], weight_decay: 0.1 };
    const lamb = { ...common, eps: 1e-6, bias_correction: false, max_coeff: 3, min_coeff: 0.3, eps_inside_sqrt: false };
    expect(optimizerOf({ type: 'lamb', params: lamb })).toEqual({
      type: 'Lamb',
      lr: 2e-4,
      beta1: 0.8,
      beta2: 0.95,
      eps: 1e-6,
      weightDecay: 0.1,
      biasCorrection: false,
      minCoefficient: 0.3,
      maxCoefficient: 3,
    });
    expect(optimizerOf({ type: 'LION', params: common })).toEqual({
      type: 'Lion',
      lr: 2e-4,
      beta1: 0.8,
      beta2: 0.95,
      weightDecay: 0.1,
    });
  });

  it.each([
    ['Lion', { eps: 1e-8 }, 'eps', 'a key of Lion: lr, betas, weight_decay', 'one of Adam, AdamW, Lamb'],
    ['AdamW', { max_coeff: 5 }, 'max_coeff', 'a key of AdamW: lr, betas, eps,', 'one of Lamb'],
    ['Lamb', { adam_w_mode: true }, 'adam_w_mode', 'a key of Lamb: lr, betas, eps,', 'one of Adam, AdamW'],
  ])('refuses for %s the key of another type: %j', (type, params, key, expected, found) => {
    const problems = problemsOf({ type, params });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toMatchObject({ kind: 'conflict', path: `optimizer.params.${key}`, found });
    expect(problems[0]!.expected).toContain(expected);
  });

  it('refuses bounds that cross, also against a default', () => {
    for (const [params, key, found] of [
      [{ min_coeff: 2, max_coeff: 1 }, 'min_coeff', '2 and 1'],
      [{ min_coeff: 11 }, 'min_coeff', '11 and 10'],
      [{ max_coeff: 0.001 }, 'max_coeff', '0.01 and 0.001'],
    ] as const)
      expect(problemsOf({ type: 'Lamb', params })).toMatchObject([
        { kind: 'conflict', path: `optimizer.params.${key}`, expected: 'min_coeff <= max_coeff', found },
      ]);
    expect(problemsOf({ type: 'Lamb', params: { min_coeff: 1, max_coeff: 1 } })).toEqual([]);
  });

  it('names the nearest type and key, and what is not built', () => {
    expect(problemsOf({ type: 'Lamp' })).toMatchObject([
      { nearest: 'Lamb', expected: '"Adam", "AdamW", "Lamb" or "Lion"', hint: 'Did you mean "Lamb"?' },
    ]);
    expect(problemsOf({ type: 'Lamb', params: { max_coef: 3 } })).toMatchObject([{ nearest: 'max_coeff' }]);
    expect(problemsOf({ type: 'Lamb', params: { eps_inside_sqrt: true } })).toMatchObject([{ kind: 'not-built' }]);
    expect(problemsOf({ type: 'OneBitLamb' })).toMatchObject([{ kind: 'not-built' }]);
    expect(problemsOf({ type: 'Lamb', params: { max_coeff: 0 } })).toMatchObject([{ kind: 'value' }]);
  });
});
