import type { ZeroStage } from './model-states';
import { stepTraffic, zeroPlusPlusInterNodeBytes } from './traffic';

const stages: readonly ZeroStage[] = [0, 1, 2, 3];

describe('step traffic', () => {
  it.each([1, 2, 3, 4, 8, 1024])(
    'is 2(N−1)/N·Ψ elements in stages 0 to 2 and 3(N−1)/N·Ψ in stage 3 at N = %i',
    (world) => {
      const params = world * 1000;
      const oneWay = (world - 1) * 1000;
      const elements = stages.map((stage) => stepTraffic({ params, world, stage }).elements);
      expect(elements).toEqual([2 * oneWay, 2 * oneWay, 2 * oneWay, 3 * oneWay]);
    },
  );

  it('counts gradient and weight bytes by their own type', () => {
    const bytes = (stage: ZeroStage) =>
      stepTraffic({ params: 400, world: 4, stage, paramBytes: 2, gradBytes: 4 }).bytes;
    expect(stages.map(bytes)).toEqual([300 * 4 * 2, 300 * (4 + 2), 300 * (4 + 2), 300 * (4 + 2 + 2)]);
  });

  it('multiplies the gradient part by the micro-batches only where each one is reduced', () => {
    const query = { params: 400, world: 4, accumulation: 3 };
    const every = { ...query, reduceEvery: 'microBatch' } as const;
    expect(stages.map((stage) => stepTraffic({ ...query, stage }).gradElements)).toEqual([600, 300, 300, 300]);
    expect(stages.map((stage) => stepTraffic({ ...every, stage }).gradElements)).toEqual([1800, 900, 900, 900]);
  });

  it('gathers weights once a step in stages 1 and 2, and twice a micro-batch in stage 3', () => {
    const query = { params: 400, world: 4, accumulation: 3 };
    expect(stages.map((stage) => stepTraffic({ ...query, stage }).paramElements)).toEqual([0, 300, 300, 1800]);
  });

  it('saves the second gather when weights are kept after the forward pass', () => {
    expect(stepTraffic({ params: 400, world: 4, stage: 3, releaseAfterForward: false }).elements).toBe(600);
  });

  it('refuses a fractional accumulation', () => {
    expect(() => stepTraffic({ params: 1, world: 1, stage: 0, accumulation: 0.5 })).toThrow(/accumulation/);
  });
});

describe('ZeRO++', () => {
  const bytes = (quantizedWeights: boolean, secondaryPartition: boolean, quantizedGrads: boolean) =>
    zeroPlusPlusInterNodeBytes({ params: 1000, quantizedWeights, secondaryPartition, quantizedGrads });

  it('sends a quarter of the 3Ψ elements of stage 3 between nodes, each part on its own share', () => {
    expect(bytes(false, false, false)).toBe(3 * 2000);
    expect(bytes(true, false, false)).toBe(2 * 2000);
    expect(bytes(false, true, false)).toBe(2 * 2000);
    expect(bytes(false, false, true)).toBe(2.25 * 2000);
    expect(bytes(true, true, true)).toBe(0.75 * 2000);
  });
});
