import {
  activationCheckpointBytes,
  activationElements,
  activationWorkingBytes,
  modelStateWorkingBytes,
  partitionedActivationTraffic,
  transferEfficiency,
  transformerParams,
} from './activations';

const gpt2 = { layers: 48, hidden: 1600, batch: 32, sequence: 1024 };

describe('activations', () => {
  it("of ZeRO's 1.5B model are 30.2e9 elements, 60 GB in 16 bits", () => {
    expect(activationElements(gpt2)).toBe(12 * 1600 * 32 * 1024 * 48);
    expect((activationElements(gpt2) / 1e9).toFixed(1)).toBe('30.2');
    expect(Math.round((2 * activationElements(gpt2)) / 1e9)).toBe(60);
  });

  it('checkpointed per block are one block input each, fewer by the interval, and cut by P_a', () => {
    const shape = { layers: 125, hidden: 8192, batch: 32, sequence: 1024 };
    const whole = activationCheckpointBytes(shape);
    expect(whole).toBe(2 * 32 * 1024 * 8192 * 125);
    expect((whole / 1e9).toFixed(0)).toBe('67');
    expect(whole / activationCheckpointBytes({ ...shape, partitions: 16 })).toBe(16);
    expect(whole / activationCheckpointBytes({ ...shape, interval: 5 })).toBe(5);
    expect(activationCheckpointBytes({ ...shape, elementBytes: 4 })).toBe(2 * whole);
  });

  it('between two checkpoints follow equation 5 of ZeRO-Infinity', () => {
    const bytes = activationWorkingBytes({ hidden: 64, batch: 2, sequence: 10, heads: 4, interval: 3 });
    expect(bytes).toBe(2 * 10 * 3 * (16 * 64 + 2 * 4 * 10));
  });

  it('partitioned add a twelfth of the traffic, below 10 %', () => {
    const { baseElements, addedElements } = partitionedActivationTraffic({ hidden: 8192, batch: 2, sequence: 1024 });
    expect(baseElements).toBe(12 * 2 * 1024 * 8192);
    expect(addedElements / baseElements).toBeCloseTo(1 / 12, 14);
  });

  it('sit beside 16·C² bytes of the widest operator and 12·L·C² parameters', () => {
    expect(modelStateWorkingBytes(64)).toBe(16 * 64 * 64);
    expect(transformerParams(48, 1600) / 1e9).toBeCloseTo(1.47, 2);
  });

  it('need whole numbers', () => {
    expect(() => activationElements({ ...gpt2, hidden: 0 })).toThrow(/hidden to be an integer ≥ 1, got 0/);
  });
});

describe('transfer efficiency', () => {
  const shape = { batch: 1, sequence: 1024, hidden: 2048 };

  /** ZeRO-Infinity, section 4, at a peak of 70 TF. */
  it.each([
    ['paramsAndGrads', { batch: 1 }, 70e9, '0.506'],
    ['paramsAndGrads', { batch: 8 }, 70e9, '0.891'],
    ['optimizer', { batch: 1 }, 280e9, '0.506'],
    ['optimizer', { batch: 2 }, 1.5e12, '0.916'],
    ['activations', { hidden: 2048 }, 2e9, '0.584'],
    ['activations', { hidden: 8192 }, 1e9, '0.737'],
    ['activations', { hidden: 8192 }, 3e9, '0.894'],
    ['activations', { hidden: 32768 }, 1e9, '0.918'],
  ] as const)('of %s with %p at %d B/s is %s', (state, change, bandwidth, expected) => {
    expect(transferEfficiency({ ...shape, ...change, state, bandwidth }).toFixed(3)).toBe(expected);
  });
});
