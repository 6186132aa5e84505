/** A thousand steps take no more memory than a hundred. */
import { launchRuns } from './launch-runs';

describe('a long run', () => {
  it('stays flat: 1,000 steps of stage 3 on 2 ranks, overlapping, in bf16', async () => {
    const [result] = await launchRuns(2, [
      {
        name: 'long',
        steps: 1000,
        config: { bf16: { enabled: true }, zero_optimization: { stage: 3, overlap_comm: true } },
      },
    ]);
    const resident = result!.resident.filter((_, i) => i % 2 === 0);
    const peaks = result!.resident.filter((_, i) => i % 2 === 1);
    expect(resident).toHaveLength(10);
    // The device's account is exact: not a byte more after step 100.
    expect(new Set(peaks).size).toBe(1);
    // Without its garbage V8's heap still breathes by a few MB; a leak of one small tensor a step (256 bytes and its handle)
    // would be seen in the account and in the count of live tensors, one of native memory of 10 KB a step here.
    expect(resident.at(-1)! - resident[1]!).toBeLessThan(8 * 2 ** 20);
    expect(result!.ranks.map(({ leaked }) => leaked)).toEqual([0, 0]);
    expect(result!.losses.every(Number.isFinite)).toBe(true);
  }, 120_000);
});
