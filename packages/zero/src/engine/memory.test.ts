/** Bytes a rank holds, on the null device: the same engine, plan and model, without the arithmetic. */
import { device, ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { modelStateBytes, type ZeroStage } from '../estimate';
import { initialize } from '../initialize';

interface Sizes {
  layers: number;
  hiddenSize: number;
  vocabSize: number;
}

interface Held {
  states: number;
  peak: number;
  parameters: number;
  bytesSent: number;
}

const stages = [0, 1, 2, 3] as const;

/** Trains one step of one rank of `world` and gives what it held at most. */
async function hold(sizes: Sizes, world: number, stage: ZeroStage, config: object, T = 32): Promise<Held> {
  const nothing = device('null');
  nothing.resetPeak();
  const before = nothing.account().live;
  using model = new Bloom({ ...bloomPresets['bloom-tiny']!, heads: 4, ...sizes });
  using group = ProcessGroup.null(world);
  using engine = await initialize({
    model,
    group,
    device: nothing,
    config: {
      train_micro_batch_size_per_gpu: 1,
      optimizer: { type: 'AdamW' },
      zero_optimization: { stage },
      ...config,
    },
  });
  const rows = [new Int32Array(T + 1)];
  const { bytesSent } = await engine.trainBatch(() => ({ rows }));
  return {
    states: engine.modelStateBytes(),
    peak: nothing.account().peak - before,
    parameters: model.parameters.reduce((sum, { numel }) => sum + numel, 0),
    bytesSent,
  };
}

const bf16 = { bf16: { enabled: true } };
const kinds = {
  'bf16 with bf16 gradients: 16, 4 + 12/N, 2 + 14/N, 16/N': {
    config: { ...bf16, data_types: { grad_accum_dtype: 'bf16' } },
    bytes: { params: 2, grads: 2, optimizer: 12 },
  },
  'bf16 with fp32 gradients: 18, 6 + 12/N, 2 + 16/N, 18/N': {
    config: bf16,
    bytes: { params: 2, grads: 4, optimizer: 12 },
  },
  'bf16 with bf16 gradients and Lion: 12, 4 + 8/N, 2 + 10/N, 12/N': {
    config: { ...bf16, data_types: { grad_accum_dtype: 'bf16' }, optimizer: { type: 'Lion' } },
    bytes: { params: 2, grads: 2, optimizer: 8 },
  },
  'fp32: 16, 8 + 8/N, 4 + 12/N, 16/N': { config: {}, bytes: { params: 4, grads: 4, optimizer: 8 } },
};

describe('model states', () => {
  const model = { layers: 4, hiddenSize: 256, vocabSize: 4096 };
  const cases = Object.entries(kinds).flatMap(([name, kind]) =>
    [2, 4, 8].flatMap((world) => stages.map((stage) => ({ name, world, stage, ...kind }))),
  );

  it.each(cases)('take the bytes of the formula within 1 %: $name, N = $world, stage $stage', async (c) => {
    const { states, parameters } = await hold(model, c.world, c.stage, c.config);
    const expected = modelStateBytes({
      params: parameters,
      world: c.world,
      stage: c.stage,
      bytesPerParam: c.bytes,
    }).modelStateBytes;
    expect(Math.abs(states / expected - 1)).toBeLessThan(0.01);
  });
});

describe('the peak of a rank', () => {
  // From 10 k to 50 M parameters; shallow and deep, with a vocabulary that is nothing or nearly everything.
  const models: Sizes[] = [
    { layers: 1, hiddenSize: 24, vocabSize: 256 },
    { layers: 1, hiddenSize: 16, vocabSize: 4096 },
    { layers: 2, hiddenSize: 24, vocabSize: 64 },
    { layers: 2, hiddenSize: 64, vocabSize: 512 },
    { layers: 4, hiddenSize: 256, vocabSize: 8192 },
    { layers: 12, hiddenSize: 128, vocabSize: 1000 },
    { layers: 2, hiddenSize: 512, vocabSize: 32000 },
    { layers: 12, hiddenSize: 512, vocabSize: 16384 },
  ];
  const cases = models.flatMap((model) => [2, 3, 4, 8].map((world) => ({ ...model, world })));

  it.each(cases)(
    'never grows with the stage: $layers x $hiddenSize, V $vocabSize, N = $world',
    async ({ world, ...model }) => {
      for (const config of Object.values(kinds).map((kind) => kind.config)) {
        const peaks: number[] = [];
        for (const stage of stages) peaks.push((await hold(model, world, stage, config)).peak);
        expect(`${peaks}`).toBe(`${[...peaks].sort((a, b) => b - a)}`);
      }
    },
  );
});

describe('a model of 176 billion parameters', () => {
  it('is planned on a laptop: 384 ranks at stage 3', async () => {
    using model = new Bloom(bloomPresets.bloom!);
    const { states, parameters } = await hold(
      bloomPresets.bloom!,
      384,
      3,
      kinds['fp32: 16, 8 + 8/N, 4 + 12/N, 16/N'].config,
      2048,
    );
    expect(model.units).toHaveLength(73);
    expect(parameters).toBe(176_247_271_424);
    expect(Math.abs(states / ((16 * parameters) / 384) - 1)).toBeLessThan(0.01);
  });
});
