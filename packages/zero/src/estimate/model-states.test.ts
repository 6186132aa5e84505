import {
  adamBytesPerParam,
  bf16AdamFp32Grads,
  fp32Adam,
  hpzModelStateBytes,
  lionBytesPerParam,
  maxParams,
  modelStateBytes,
  type ZeroStage,
} from './model-states';
import { printTable1Gigabytes, zeroTable1, zeroTable2 } from './zero-tables';

const stages: readonly ZeroStage[] = [0, 1, 2, 3];

describe('model-state bytes', () => {
  it.each([
    [1, [16, 16, 16, 16]],
    [2, [16, 10, 9, 8]],
    [4, [16, 7, 5.5, 4]],
    [8, [16, 5.5, 3.75, 2]],
  ] as const)('cost at N = %i per parameter, by stage, %p bytes in mixed precision', (world, expected) => {
    const perParam = stages.map((stage) => modelStateBytes({ params: 1, world, stage }).modelStateBytes);
    expect(perParam).toEqual(expected);
  });

  it('cost 18 and then 6 + 12/N bytes where bf16 weights have fp32 gradients', () => {
    const bytes = (stage: ZeroStage) =>
      modelStateBytes({ params: 1, world: 8, stage, bytesPerParam: bf16AdamFp32Grads }).modelStateBytes;
    expect(stages.map(bytes)).toEqual([18, 6 + 12 / 8, 2 + 16 / 8, 18 / 8]);
  });

  it('cost 16 bytes in fp32, where the weights are their own master copy', () => {
    const parts = modelStateBytes({ params: 100, world: 4, stage: 2, bytesPerParam: fp32Adam });
    expect(parts).toEqual({ paramsBytes: 400, gradsBytes: 100, optimizerBytes: 200, modelStateBytes: 700 });
  });

  it('cut weights only in stage 3, gradients from 2 and optimizer states from 1', () => {
    const parts = (stage: ZeroStage) => {
      const { paramsBytes, gradsBytes, optimizerBytes } = modelStateBytes({ params: 8, world: 4, stage });
      return [paramsBytes, gradsBytes, optimizerBytes];
    };
    expect(stages.map(parts)).toEqual([
      [16, 16, 96],
      [16, 16, 24],
      [16, 4, 24],
      [4, 4, 24],
    ]);
  });

  it('follow the dtypes', () => {
    expect(adamBytesPerParam('bf16', 'bf16')).toEqual({ params: 2, grads: 2, optimizer: 12 });
    expect(adamBytesPerParam('bf16', 'fp32')).toEqual({ params: 2, grads: 4, optimizer: 12 });
    expect(adamBytesPerParam('fp32', 'fp32')).toEqual({ params: 4, grads: 4, optimizer: 8 });
    expect(lionBytesPerParam('bf16', 'bf16')).toEqual({ params: 2, grads: 2, optimizer: 8 });
    expect(lionBytesPerParam('fp32', 'fp32')).toEqual({ params: 4, grads: 4, optimizer: 4 });
  });

  it.each([
    [{ params: -1, world: 1, stage: 0 }, /params to be a number ≥ 0, got -1/],
    [{ params: Number.NaN, world: 1, stage: 0 }, /got NaN/],
    [{ params: 1, world: 0, stage: 0 }, /world to be an integer ≥ 1, got 0/],
    [{ params: 1, world: 1.5, stage: 0 }, /got 1.5/],
  ] as const)('refuse %p', (query, message) => {
    expect(() => modelStateBytes(query)).toThrow(message);
  });
});

/** ZeRO, Table 1, as printed: per DP degree 7.5B, 128B, 1T × Pos, Pos+g, Pos+g+p. */
const table1: readonly (readonly [number, string])[] = [
  [1, '120 120 120 2048 2048 2048 16000 16000 16000'],
  [4, '52.5 41.3 30 896 704 512 7000 5500 4000'],
  [16, '35.6 21.6 7.5 608 368 128 4750 2875 1000'],
  [64, '31.4 16.6 1.88 536 284 32 4187 2218 250'],
  [256, '30.4 15.4 0.47 518 263 8 4046 2054 62.5'],
  [1024, '30.1 15.1 0.12 513 257 2 4011 2013 15.6'],
];

describe("ZeRO's Table 1", () => {
  const expected = table1.flatMap(([world, row]) =>
    row.split(' ').map((printed, i) => {
      const params = [7.5e9, 128e9, 1e12][Math.floor(i / 3)]!;
      return { world, params, stage: (i % 3) + 1, printed };
    }),
  );

  it('has 54 cells', () => {
    expect(expected).toHaveLength(54);
    expect(zeroTable1()).toHaveLength(54);
  });

  it.each(expected)('prints $printed GB at $world ranks, $params parameters, stage $stage', (cell) => {
    const { world, params, stage } = cell;
    const bytes = modelStateBytes({ params, world, stage: stage as ZeroStage }).modelStateBytes;
    expect(printTable1Gigabytes(bytes)).toBe(cell.printed);
    expect(zeroTable1().find((own) => own.world === world && own.params === params && own.stage === stage)).toEqual(
      cell,
    );
  });
});

describe("ZeRO's Table 2", () => {
  /** In billions, theory columns. The paper prints the last column as 128B, 256B, 0.5T, 1T and 2T, taking 1T for 1024B. */
  const table2 = [
    [1, 64, 2, 7.6, 14.4, 128],
    [2, 128, 4, 15.2, 28.8, 256],
    [4, 256, 8, 30.4, 57.6, 512],
    [8, 512, 16, 60.8, 115.2, 1024],
    [16, 1024, 32, 121.6, 230.4, 2048],
  ] as const;

  it.each(table2)('gives the models of %i × %i GPUs within 1 %%', (modelParallel, gpus, ...billions) => {
    const row = zeroTable2().find((own) => own.modelParallel === modelParallel)!;
    expect(row.gpus).toBe(gpus);
    billions.forEach((billion, stage) => {
      expect(Math.abs(row.maxParamsByStage[stage]! / (billion * 1e9) - 1)).toBeLessThan(0.01);
    });
  });

  it('inverts the bytes: the largest model fills the memory exactly', () => {
    for (const stage of stages) {
      const params = maxParams({ memoryBytes: 32e9, world: 64, stage });
      expect(modelStateBytes({ params, world: 64, stage }).modelStateBytes).toBeCloseTo(32e9, 3);
    }
  });
});

describe('hpZ', () => {
  it('costs 9.0 times stage 3 and 114 times less than data parallelism at 100B, 1024 ranks, 16 a node', () => {
    const query = { params: 100e9, world: 1024 };
    const hpz = hpzModelStateBytes({ ...query, partitionSize: 16 });
    expect(hpz).toBe(1.5625e9 + 12.5e9);
    const stage3 = modelStateBytes({ ...query, stage: 3 }).modelStateBytes;
    const dataParallel = modelStateBytes({ ...query, stage: 0 }).modelStateBytes;
    expect((hpz / stage3).toFixed(1)).toBe('9.0');
    expect((dataParallel / hpz).toFixed(0)).toBe('114');
  });
});
