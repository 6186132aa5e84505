/** Block-sparse attention at 16K tokens and at most 6.25 % of the work, bf16, against our own dense flash attention. */
import { againstDense } from '../benches/sparse.mjs';

const full = {
  size: { T: 16384, H: 16, D: 64, dtype: 'bf16' },
  patterns: [
    { kind: 'window', block: 64 },
    { kind: 'bigbird', block: 64 },
    { kind: 'bslongformer', block: 64 },
    { kind: 'fixed', block: 16 },
  ],
};
const tiny = { size: { T: 512, H: 1, D: 16, dtype: 'bf16' }, patterns: [{ kind: 'window', block: 16 }] };

export function benches({ core, require, device }) {
  const nn = require('@ds/nn');
  const { size, patterns } = core.cudaDevices().emulated ? tiny : full;
  return patterns.flatMap((pattern) =>
    [false, true].map((causal) => againstDense(core, nn, { ...pattern, causal, prefix: 'cuda/' }, { ...size, device })),
  );
}
