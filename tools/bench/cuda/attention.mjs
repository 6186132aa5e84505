/** Causal flash attention, bf16, against PyTorch's SDPA on tensors that lie as it likes them. */
import path from 'node:path';
import { root } from '../../programs.mjs';
import { makeOpBench } from '../op-bench.mjs';

/** Tokens in all and width: the same work for linear layers at every length. */
const full = { tokens: 16384, width: 1024, lengths: [2048, 4096, 8192, 16384], headSizes: [64, 128] };
const tiny = { tokens: 64, width: 32, lengths: [64], headSizes: [16] };

export function benches({ core, require, device }) {
  const { tokens, width, lengths, headSizes } = core.cudaDevices().emulated ? tiny : full;
  const specs = require(path.join(root, 'test/ops/specs.ts')).allSpecs();
  const { Random } = require(path.join(root, 'packages/core-native/csrc/kernels/common/cases.ts'));
  const spec = specs.find(({ op }) => op === 'attention');
  return headSizes.flatMap((D) =>
    lengths.flatMap((T) => {
      const [B, H] = [tokens / T, width / D];
      const c = {
        name: `B ${B} T ${T} H ${H} D ${D} bf16`,
        dtype: 'bf16',
        inputs: { qkv: { shape: [B, T, H * 3 * D] } },
        parameters: { heads: H, causal: true },
      };
      return [false, true].map((backward) => {
        const name = `cuda/attention/D ${D}/T ${T}/${backward ? 'forward+backward' : 'forward'}`;
        const rival = { variant: 'sdpa_bare', name: 'SDPA' };
        // Five products backward for two forward.
        const flops = spec.flops(c) * (backward ? 3.5 : 1);
        const make = async () => ({
          ...(await makeOpBench({ core, Random }, spec, c, { name, backward, device, rival })),
          amount: flops / 1e12,
          unit: 'TFLOP/s',
          roofline: { flops, tensorCores: true },
        });
        return { name, make };
      });
    }),
  );
}
