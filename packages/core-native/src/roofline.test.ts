import { measureRoofline, type RooflineKind } from './roofline';

describe('measureRoofline', () => {
  it('gives a rate that a computer can have, for every kind', () => {
    for (const kind of ['memcpy', 'stream_copy', 'read', 'triad', 'adam_mix', 'fma'] as const) {
      const rate = measureRoofline(kind, { elements: 100_003, repeats: 3 });
      expect(rate).toBeGreaterThan(1e7);
      expect(rate).toBeLessThan(1e14);
    }
  });

  it('names the choices when asked for another', () => {
    expect(() => measureRoofline('flops' as RooflineKind)).toThrow(
      'measure: expected one of memcpy, stream_copy, read, triad, adam_mix, fma, got flops',
    );
  });
});
