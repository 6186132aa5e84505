/** Stages 0 to 3, and everything that may be tuned, give the same bits. */
import { launchRuns, type TrainingResult, type TrainingRun } from './launch-runs';

const variants: Record<string, object> = {
  '': {},
  'overlap on': { overlap_comm: true },
  'overlap on, far prefetch': { overlap_comm: true, stage3_prefetch_bucket_size: 1e6 },
  'buckets of 10,000': { reduce_bucket_size: 10_000, allgather_bucket_size: 10_000 },
  'overlap on, everything in one bucket': { overlap_comm: true, reduce_bucket_size: 1e9, allgather_bucket_size: 1e9 },
  'reuse and persistence': { stage3_max_reuse_distance: 4000, stage3_param_persistence_threshold: 100 },
};

/** With two ranks every setting is tried at every stage that knows it; with others, the plainest and the wildest. */
function variantsAt(world: number, stage: number): [string, object][] {
  const known = Object.entries(variants).filter(
    ([, zero]) => stage === 3 || !Object.keys(zero).some((key) => key.startsWith('stage3_')),
  );
  return world === 2 ? known : [known[0]!, known.at(stage === 3 ? 2 : -1)!];
}

/** What must not change the result, for one kind of numbers, accumulation and optimizer. */
function runsOf(world: number, kind: string, { steps = 50, config, decayGroups = 'all' }: Kind): TrainingRun[] {
  return ([0, 1, 2, 3] as const).flatMap((stage) =>
    variantsAt(world, stage).map(([variant, zero]) => ({
      name: `${kind} | stage ${stage} ${variant}`,
      steps,
      decayGroups,
      // Odd sizes: shards cut through parameters, and need padding.
      model: { hiddenSize: 36, heads: 3, layers: 2, hiddenDropout: 0.1, attentionDropout: 0.1 },
      config: { ...config, zero_optimization: { stage, ...zero } },
    })),
  );
}

interface Kind {
  config: object;
  steps?: number;
  decayGroups?: 'all' | 'matrices';
}

const bf16 = { bf16: { enabled: true } };
const lamb = { optimizer: { type: 'Lamb', params: { lr: 3e-3, weight_decay: 0.05, max_coeff: 2 } } };
const lion = { optimizer: { type: 'Lion', params: { lr: 1e-3, weight_decay: 0.05 } } };

const kinds: Record<string, Kind> = {
  'fp32, accumulation 1': { config: {} },
  'fp32, accumulation 3': { config: { gradient_accumulation_steps: 3 } },
  'bf16, accumulation 1': { config: bf16 },
  'bf16, accumulation 3': { config: { ...bf16, gradient_accumulation_steps: 3 } },
  'bf16 gradients': { config: { ...bf16, data_types: { grad_accum_dtype: 'bf16' } } },
  'Lamb, fp32': { config: lamb, steps: 10, decayGroups: 'matrices' },
  'Lamb, bf16, accumulation 3': { config: { ...lamb, ...bf16, gradient_accumulation_steps: 3 }, steps: 10 },
  'Lion, bf16': { config: { ...lion, ...bf16 }, steps: 10 },
};

describe.each([1, 2, 4])('with %i ranks', (world) => {
  let results: TrainingResult[];

  beforeAll(async () => {
    const runs = Object.entries(kinds).flatMap(([name, kind]) => runsOf(world, name, kind));
    // Ranks wait at random before each collective, so that nothing depends on who comes first.
    results = await launchRuns(world, runs, { DS_COMM_JITTER_US: '100' });
    expect(results).toHaveLength(runs.length);
  }, 300_000);

  it.each(Object.keys(kinds))('all stages and settings give the same losses, norms and weights: %s', (kind) => {
    const [first, ...others] = results.filter(({ name }) => name.startsWith(`${kind} |`));
    expect(first!.losses).toHaveLength(kinds[kind]!.steps ?? 50);
    expect(first!.losses.every(Number.isFinite)).toBe(true);
    expect(first!.losses.at(-1)).not.toBe(first!.losses[0]);
    for (const other of others) {
      expect(`${other.name}: ${other.losses}`).toBe(`${other.name}: ${first!.losses}`);
      expect(`${other.name}: ${other.norms}`).toBe(`${other.name}: ${first!.norms}`);
      expect(`${other.name}: ${other.evaluation}`).toBe(`${other.name}: ${first!.evaluation}`);
      expect([other.name, ...other.weights]).toEqual([other.name, ...first!.weights]);
    }
    expect(first!.weights).toHaveLength(1);
  });

  it('releases every tensor', () => {
    for (const { name, ranks } of results)
      for (const { leaked } of ranks) expect(`${name}: ${leaked}`).toBe(`${name}: 0`);
  });

  it('sends exactly the bytes of the plan', () => {
    for (const { name, bytesSent, planned, elements } of results) {
      // Beside the plan only the step's numbers travel: 6 f64, as one all-reduce.
      const metrics = (2 * (world - 1) * 6 * 8) / world;
      expect(`${name}: ${bytesSent}`).toBe(`${name}: ${planned.bytes + metrics}`);
      expect(planned.elements).toBeGreaterThanOrEqual((2 * elements * (world - 1)) / world);
    }
  });
});
