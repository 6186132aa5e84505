import { Bloom, type BloomConfig, bloomPresets } from '@ds/nn';
import { parseDeepSpeedConfig } from '../config';
import { planFor } from '../initialize';
import { type Plan, type PlanOp, planHash, planOpText } from './plan';
import { planMemory } from './plan-memory';
import { planTraffic } from './traffic';

const tiny: BloomConfig = { ...bloomPresets['bloom-tiny']!, layers: 2 };

function plan(zero: object, world = 2, config = tiny, type = 'AdamW'): { plan: Plan; model: Bloom } {
  const model = new Bloom(config);
  const ds = { train_micro_batch_size_per_gpu: 1, optimizer: { type }, zero_optimization: zero };
  return { plan: planFor(model, parseDeepSpeedConfig(ds, { world })), model };
}

function text({ plan, model }: { plan: Plan; model: Bloom }, ops: readonly PlanOp[]): string[] {
  return ops.map((op) => planOpText(plan, model.uses, op));
}

describe('the plan of a step of Lamb', () => {
  const config = { ...tiny, layers: 1 };
  const units = ['word_embeddings', 'word_embeddings_layernorm', 'h.0', 'ln_f'];

  it('goes twice over the units, with one sum over the ranks between', () => {
    const made = plan({ stage: 3 }, 2, config, 'Lamb');
    // Beside the updates, units that stay whole travel.
    expect(text(made, made.plan.step).filter((op) => !op.startsWith('gatherUpdated'))).toEqual([
      ...units.map((unit) => `moments ${unit}`),
      'sumNorms',
      ...units.map((unit) => `update ${unit}`),
    ]);
    expect(planHash(made.plan)).not.toBe(planHash(plan({ stage: 3 }, 2, config).plan));
  });

  it('needs no sum where every rank does all of it', () => {
    const made = plan({ stage: 0 }, 2, config, 'Lamb');
    expect(text(made, made.plan.step)).toEqual([
      ...units.flatMap((unit) => [`gatherGradient ${unit}`, `moments ${unit}`]),
      ...units.map((unit) => `update ${unit}`),
    ]);
  });

  it.each([0, 2, 3])(
    'sends two f64 of every parameter more than AdamW at stage %i, where the optimizer is cut',
    (stage) => {
      const sizes = { paramBytes: 2, gradBytes: 4 };
      const [lamb, adam] = ['Lamb', 'AdamW'].map((type) => planTraffic(plan({ stage }, 4, config, type).plan, sizes));
      const parameters = new Bloom(config).parameters.length;
      expect(lamb!.bytes - adam!.bytes).toBe(stage === 0 ? 0 : (2 * 3 * parameters * 2 * 8) / 4);
    },
  );
});

describe('the plan of a micro-batch', () => {
  it('only computes and reduces at stage 0', () => {
    const made = plan({ stage: 0 });
    expect(text(made, made.plan.microBatch)).toEqual([
      'forward word_embeddings',
      'forward word_embeddings_layernorm',
      'forward h.0',
      'forward h.1',
      'forward ln_f',
      'openGradient word_embeddings',
      'forward word_embeddings',
      'backward word_embeddings',
      'openGradient ln_f',
      'backward ln_f',
      'reduce ln_f',
      'closeGradient ln_f',
      'openGradient h.1',
      'backward h.1',
      'reduce h.1',
      'closeGradient h.1',
      'openGradient h.0',
      'backward h.0',
      'reduce h.0',
      'closeGradient h.0',
      'openGradient word_embeddings_layernorm',
      'backward word_embeddings_layernorm',
      'reduce word_embeddings_layernorm',
      'closeGradient word_embeddings_layernorm',
      'backward word_embeddings',
      'reduce word_embeddings',
      'closeGradient word_embeddings',
    ]);
    expect(text(made, made.plan.step).slice(0, 2)).toEqual([
      'gatherGradient word_embeddings',
      'update word_embeddings',
    ]);
  });

  it('gathers a unit before it computes, the next one beside it, and releases it behind it, at stage 3', () => {
    const made = plan({ stage: 3, overlap_comm: true, stage3_prefetch_bucket_size: 60_000 });
    expect(text(made, made.plan.microBatch).slice(0, 14)).toEqual([
      'gather word_embeddings',
      'gather word_embeddings_layernorm',
      'gather h.0',
      'forward word_embeddings',
      'release word_embeddings',
      'forward word_embeddings_layernorm',
      'release word_embeddings_layernorm',
      'gather h.1',
      'gather ln_f',
      'forward h.0',
      'release h.0',
      'gather word_embeddings',
      'forward h.1',
      'release h.1',
    ]);
    expect(text(made, made.plan.step)).toEqual(made.plan.units.map(({ layout }) => `update ${layout.unit.name}`));
  });

  it('reduces beside the next backward when communication overlaps, and gives the buffer back behind it', () => {
    const made = plan({ stage: 2, overlap_comm: true }, 2, { ...tiny, layers: 6 });
    const ops = text(made, made.plan.microBatch);
    const reduce = ops.indexOf('reduce h.4');
    expect(ops.slice(reduce, reduce + 4)).toEqual([
      'reduce h.4',
      'openGradient h.3',
      'backward h.3',
      'closeGradient h.4',
    ]);
  });

  it('waits with reductions until a bucket is full', () => {
    const made = plan({ stage: 2, reduce_bucket_size: 90_000 });
    const reductions = text(made, made.plan.microBatch).filter(
      (op) => op.startsWith('reduce') || op.startsWith('backward'),
    );
    expect(reductions).toEqual([
      'backward word_embeddings',
      'backward ln_f',
      'backward h.1',
      'backward h.0',
      'reduce ln_f',
      'reduce h.1',
      'reduce h.0',
      'backward word_embeddings_layernorm',
      'backward word_embeddings',
      'reduce word_embeddings_layernorm',
      'reduce word_embeddings',
    ]);
  });

  it('keeps a unit gathered that is used again within the reuse distance', () => {
    const made = plan({ stage: 3, stage3_max_reuse_distance: 33_000 });
    const ops = text(made, made.plan.microBatch);
    // The embedding (32,768 elements) lies between the two uses of ln_f, and ln_f itself twice between those of h.1.
    expect(ops.filter((op) => op === 'gather ln_f')).toHaveLength(1);
    expect(ops.filter((op) => op === 'gather h.1')).toHaveLength(2);
  });

  it('keeps units below the persistence threshold whole, as at stage 2', () => {
    const made = plan({ stage: 3, stage3_param_persistence_threshold: 1000 });
    expect(made.plan.units.map(({ policy }) => policy.param)).toEqual(['dp', 'none', 'dp', 'dp', 'none']);
    expect(text(made, made.plan.step)).toContain('gatherUpdated ln_f');
    expect(text(made, made.plan.microBatch)).not.toContain('gather ln_f');
  });

  it('gathers nothing ahead that would pass the most elements that may be live', () => {
    const made = plan({
      stage: 3,
      overlap_comm: true,
      stage3_prefetch_bucket_size: 1e9,
      stage3_max_live_parameters: 60_000,
    });
    let live = 0;
    const sizes = made.plan.units.map(({ layout }) => layout.elements);
    for (const op of made.plan.microBatch) {
      if (op.op === 'gather') live += sizes[op.unit]!;
      if (op.op === 'release') live -= sizes[op.unit]!;
      expect(live).toBeLessThanOrEqual(60_000);
    }
    expect(live).toBe(0);
  });
});

describe('the memory of a plan', () => {
  it('is nowhere higher than that of the stage below, however it overlaps', () => {
    const sizes = { paramBytes: 4, gradBytes: 4, accumulation: 1 };
    const padding = 1024; // shards start at cache lines: a few hundred bytes on models of a few thousand parameters
    for (const layers of [1, 2, 3, 8])
      for (const vocabSize of [64, 1000, 20_000])
        for (const world of [2, 3, 8]) {
          const of = (stage: number, overlap: boolean) =>
            planMemory(plan({ stage, overlap_comm: overlap }, world, { ...tiny, layers, vocabSize }).plan, sizes);
          for (const stage of [1, 2, 3]) {
            const below = of(stage - 1, false);
            const here = of(stage, true);
            const worse = here.flatMap((bytes, i) =>
              bytes > below[i]! + padding ? [`compute ${i}: ${bytes} > ${below[i]}`] : [],
            );
            expect([layers, vocabSize, world, stage, ...worse]).toEqual([layers, vocabSize, world, stage]);
          }
        }
  });

  it('gives up the second gradient buffer where a shallow model has no room for it', () => {
    const close = ({ plan: made, model }: ReturnType<typeof plan>) => {
      const ops = text({ plan: made, model }, made.microBatch);
      return ops[ops.indexOf('reduce h.1') + 1];
    };
    expect(close(plan({ stage: 2, overlap_comm: true }, 2, { ...tiny, layers: 2 }))).toBe('closeGradient h.1');
    expect(close(plan({ stage: 2, overlap_comm: true }, 2, { ...tiny, layers: 8 }))).toBe('openGradient h.0');
  });
});

describe('the traffic of a plan', () => {
  const cases = [1, 2, 3, 4, 8].flatMap((world) => ([0, 1, 2, 3] as const).map((stage) => ({ world, stage })));
  it.each(cases)(
    'is 2 (stage 3: 3) times (N-1)/N of the parameters: stage $stage, $world ranks',
    ({ world, stage }) => {
      const config = { ...tiny, hiddenSize: 768, heads: 12 }; // every unit a multiple of 8 * 32 elements: no padding
      const { plan: made } = plan({ stage }, world, config);
      const elements = made.units.reduce((sum, { layout }) => sum + layout.paddedElements, 0);
      const { elements: sent, bytes } = planTraffic(made, { paramBytes: 2, gradBytes: 4 });
      const rounds = stage === 3 ? 3 : 2;
      expect(sent).toBe((rounds * elements * (world - 1)) / world);
      const perElement = [4 + 4, 4 + 2, 4 + 2, 4 + 2 + 2][stage]!;
      expect(bytes).toBe((perElement * elements * (world - 1)) / world);
    },
  );

  it('is that of every micro-batch for reductions and gathers, and once for the step', () => {
    const { plan: made } = plan({ stage: 1 }, 4);
    const one = planTraffic(made, { paramBytes: 4, gradBytes: 4 }).elements;
    expect(planTraffic(made, { paramBytes: 4, gradBytes: 4 }, 3).elements).toBe(2 * one);
  });
});

describe('the hash of a plan', () => {
  it('is the same for the same config and another for any other order, size or name', () => {
    const of = (zero: object, world = 2, config = tiny) => planHash(plan(zero, world, config).plan);
    expect(of({ stage: 3 })).toBe(of({ stage: 3 }));
    const others = [
      of({ stage: 2 }),
      of({ stage: 3 }, 4),
      of({ stage: 3 }, 2, { ...tiny, layers: 3 }),
      of({ stage: 3 }, 2, { ...tiny, vocabSize: 513 }),
      of({ stage: 3, stage3_prefetch_bucket_size: 1e6 }),
    ];
    expect(new Set([of({ stage: 3 }), ...others]).size).toBe(6);
  });
});
