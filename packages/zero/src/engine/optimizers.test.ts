/** Every optimizer against its formula, written out in f64, on a model with biases and norms. */
import { ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize } from '../initialize';
import type { ZeroEngine } from './engine';

/** One parameter in f64. */
interface State {
  p: Float64Array;
  m: Float64Array;
  v: Float64Array;
  decays: boolean;
}

/** Steps one parameter; `t` from 1 on. */
type Formula = (state: State, grad: Float64Array, t: number) => void;

const [lr, decay, eps] = [2e-3, 0.1, 1e-8];

const lion: Formula = ({ p, m, decays }, grad) => {
  grad.forEach((g, i) => {
    const c = 0.9 * m[i]! + (1 - 0.9) * g;
    p[i] = p[i]! * (1 - lr * (decays ? decay : 0)) - lr * Math.sign(c);
    m[i] = 0.99 * m[i]! + (1 - 0.99) * g;
  });
};

const lamb: Formula = ({ p, m, v, decays }, grad, t) => {
  const u = grad.map((g, i) => {
    m[i] = 0.9 * m[i]! + (1 - 0.9) * g;
    v[i] = 0.999 * v[i]! + (1 - 0.999) * g * g;
    return m[i]! / (Math.sqrt(v[i]!) + eps) + (decays ? decay : 0) * p[i]!;
  });
  const [weights, direction] = [Math.hypot(...p), Math.hypot(...u)];
  const trust = weights && direction ? Math.min(4, Math.max(0.02, weights / direction)) : 1;
  const rate = (lr * Math.sqrt(1 - 0.999 ** t)) / (1 - 0.9 ** t);
  u.forEach((x, i) => {
    p[i]! -= rate * trust * x;
  });
};

const params = { lr, weight_decay: decay };
const optimizers: Record<string, [object, Formula]> = {
  Lion: [{ type: 'Lion', params }, lion],
  Lamb: [{ type: 'Lamb', params: { ...params, max_coeff: 4, min_coeff: 0.02 } }, lamb],
};

function parameters(engine: ZeroEngine) {
  return engine.storages.flatMap((storage) => storage.optimizedRanges().map((range) => ({ storage, ...range })));
}

describe.each(Object.entries(optimizers))('%s in the engine', (_name, [optimizer, formula]) => {
  it.each(['all', 'matrices'] as const)(
    'equals its formula over 5 clipped steps, where %s decay',
    async (decayGroups) => {
      using model = new Bloom({ ...bloomPresets['bloom-tiny']!, hiddenSize: 24, heads: 2, layers: 1, vocabSize: 61 });
      using group = ProcessGroup.single();
      const config = { train_batch_size: 2, optimizer, gradient_clipping: 0.3 };
      using engine = await initialize({ model, group, config, decayGroups });
      const states: State[] = [];
      for (const { storage, parameter, shardStart, count } of parameters(engine)) {
        const p = (await storage.master.numbers()).slice(shardStart, shardStart + count);
        const decays = decayGroups === 'all' || parameter.shape.length >= 2;
        states.push({ p, m: new Float64Array(count), v: new Float64Array(count), decays });
      }
      const first = states.map(({ p }) => p.slice());
      for (let t = 1; t <= 5; t++) {
        const rows = [0, 1].map((b) => Array.from({ length: 17 }, (_, i) => (3 * i * i + 5 * i * t + b) % 61));
        using losses = engine.forward({ rows });
        engine.backward(losses);
        const grads: Float64Array[] = [];
        for (const { storage, shardStart, count } of parameters(engine))
          grads.push((await storage.gradShard.numbers()).slice(shardStart, shardStart + count));
        const { gradNorm } = await engine.step();
        expect(gradNorm).toBeGreaterThan(0.3);
        const scale = 0.3 / (gradNorm + 1e-6);
        for (const [i, state] of states.entries())
          formula(
            state,
            grads[i]!.map((g) => g * scale),
            t,
          );
      }
      let farthest = 0;
      for (const [i, { storage, shardStart, count }] of parameters(engine).entries()) {
        const p = (await storage.master.numbers()).slice(shardStart, shardStart + count);
        p.forEach((x, at) => {
          expect(Math.abs(x - states[i]!.p[at]!)).toBeLessThan(1e-6);
          farthest = Math.max(farthest, Math.abs(x - first[i]![at]!));
        });
      }
      expect(farthest).toBeGreaterThan(lr);
    },
  );
});
