/** Training over GPUs: NCCL's back end under every stage, on the emulated device, against the CPU. */
import { cudaDevices } from '@ds/core-native';
import { launchRuns, type TrainingResult, type TrainingRun } from './launch-runs';

const describeEmulated = cudaDevices().emulated ? describe : describe.skip;
const stages = [0, 1, 2, 3] as const;
const kinds = { fp32: {}, 'bf16, accumulation 2': { bf16: { enabled: true }, gradient_accumulation_steps: 2 } };

const runs: TrainingRun[] = Object.entries(kinds).flatMap(([kind, config]) =>
  (['cpu', 'cuda'] as const).flatMap((device) =>
    stages.map((stage) => ({
      name: `${kind} | ${device} | ${stage}`,
      device,
      steps: 3,
      sizes: { T: 8, B: 1 },
      model: { hiddenSize: 36, heads: 3, layers: 1 },
      config: { ...config, zero_optimization: { stage, overlap_comm: stage > 0 } },
    })),
  ),
);

describeEmulated('two ranks with a GPU each', () => {
  let results: Map<string, TrainingResult>;

  beforeAll(async () => {
    results = new Map((await launchRuns(2, runs)).map((result) => [result.name, result]));
    expect(results.size).toBe(runs.length);
  }, 300_000);

  it.each(Object.keys(kinds))('train to the losses of the CPU at every stage: %s', (kind) => {
    const cpu = results.get(`${kind} | cpu | 0`)!;
    const gpus = stages.map((stage) => results.get(`${kind} | cuda | ${stage}`)!);
    const digits = kind === 'fp32' ? 4 : 1.5;
    for (const gpu of gpus) {
      for (const [i, loss] of gpu.losses.entries()) expect(loss).toBeCloseTo(cpu.losses[i]!, digits);
      expect(gpu.evaluation).toBeCloseTo(cpu.evaluation, digits);
      expect(gpu.losses.at(-1)).not.toBe(gpu.losses[0]);
      expect(gpu.weights).toHaveLength(1);
    }
  });

  it.each(Object.keys(kinds))('give the same bits at every stage: %s', (kind) => {
    const [first, ...others] = stages.map((stage) => results.get(`${kind} | cuda | ${stage}`)!);
    for (const other of others) {
      expect([other.name, ...other.losses]).toEqual([other.name, ...first!.losses]);
      expect([other.name, ...other.weights]).toEqual([other.name, ...first!.weights]);
    }
  });

  it('send the bytes that the CPU sends, and release every tensor', () => {
    for (const [name, { bytesSent, leaked }] of results) {
      expect([name, bytesSent]).toEqual([name, results.get(name.replace('cuda', 'cpu'))!.bytesSent]);
      expect(bytesSent).toBeGreaterThan(10_000);
      expect([name, leaked]).toEqual([name, 0]);
    }
  });
});
