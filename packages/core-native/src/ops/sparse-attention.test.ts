/** What the table of cases cannot say of block-sparse attention: its kinship with the dense op, and what it refuses. */
import { Random } from '../../csrc/kernels/common/cases';
import { type DeviceName, device } from '../device';
import { cpuFeatures, cudaDevices } from '../index';
import { native } from '../loader';
import type { DType } from '../tensor/dtype';
import { drop, scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { alibiSlopes, attention, attentionBackward } from './attention';
import { type BlockDrawing, BlockLayout } from './block-layout';
import { blockDsd, blockSdd, blockSoftmax, blockSoftmaxBackward } from './block-matmul';
import { type SparseAttentionOptions, sparseAttention, sparseAttentionBackward } from './sparse-attention';

const { isa: best, supported } = cpuFeatures();

/** Where the tests below put their tensors. */
let place: DeviceName = 'cpu';

afterEach(() => {
  native.set_isa(best);
  place = 'cpu';
});

function tensorOf(values: ArrayLike<number>, shape: readonly number[], dtype: DType = 'f32'): Tensor {
  return Tensor.from(values, shape, { dtype, device: place });
}

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

/** Draws a layout of one kind for all heads. */
function drawing(
  block: number,
  blocks: number,
  heads: number,
  isThere: (r: number, c: number) => boolean,
): BlockDrawing {
  const cells = Array.from({ length: blocks ** 2 }, (_, i) => Number(isThere(Math.floor(i / blocks), i % blocks)));
  return { block, blocks, layouts: [cells], headLayout: new Array<number>(heads).fill(0) };
}

/** A pattern of some of everything: a band, a global column and row, scattered blocks, and a row of nothing. */
function mixed(r: number, c: number): boolean {
  return r !== 2 && (Math.abs(r - c) <= 1 || c === 0 || r === 5 || (7 * r + 5 * c) % 11 === 0);
}

interface Values {
  out: Float64Array;
  lse: Float64Array;
  dqkv: Float64Array;
}

async function read(made: { out: Tensor; lse: Tensor; dqkv: Tensor }): Promise<Values> {
  const { out, lse, dqkv } = made;
  const values = { out: await out.numbers(), lse: await lse.numbers(), dqkv: await dqkv.numbers() };
  for (const tensor of Object.values(made)) tensor.dispose();
  return values;
}

interface Problem {
  H: number;
  D: number;
  B?: number;
  qkv: Float64Array;
}

/** Forward and backward over a layout, where `place` says. */
async function sparse({ H, D, B = 1, qkv }: Problem, layout: BlockLayout, options: SparseAttentionOptions) {
  const T = layout.tokens;
  return read(
    scope(() => {
      const x = tensorOf(qkv, [B, T, H * 3 * D]);
      const dout = tensorOf(normals(B * T * H * D, 99), [B, T, H * D]);
      const { out, lse } = sparseAttention(x, layout, options);
      return { out, lse, dqkv: sparseAttentionBackward(dout, { qkv: x, out, lse }, layout, options) };
    }),
  );
}

/** Expects |a - b| <= bound, scaled by what is large. */
function expectNear(a: Float64Array, b: Float64Array, bound = 1e-5): void {
  expect(a.length).toBe(b.length);
  const largest = b.reduce((m, x) => (Number.isFinite(x) ? Math.max(m, Math.abs(x)) : m), 1);
  for (let i = 0; i < a.length; i++)
    if (!(Math.abs(a[i]! - b[i]!) <= bound * largest) && !Object.is(a[i], b[i]))
      throw new Error(`element ${i} is ${a[i]}, not ${b[i]}`);
}

const places = [
  ...supported.map((isa) => ['cpu', isa] as const),
  ...(cudaDevices().devices.length > 0 ? [['cuda:0', best] as const] : []),
];

// The emulated GPU is slow.
jest.setTimeout(240_000);

describe.each(places)('sparse attention on %s with %s', (name, isa) => {
  beforeEach(() => {
    native.set_isa(isa);
    place = name;
  });

  it.each([
    [16, 9],
    [32, 5],
    [64, 3],
    [128, 2],
  ])('over all blocks of %i is dense attention', async (block, blocks) => {
    const [B, H, D, T] = [2, 3, 20, block * blocks];
    using layout = new BlockLayout(drawing(block, blocks, H, () => true));
    const qkv = normals(B * T * H * 3 * D, block);
    const mask = Float64Array.from({ length: B * T }, (_, i) => Number(i % 7 !== 3));
    for (const causal of [true, false])
      for (const dropout of [undefined, { p: 0.2, seed: 3, offset: 10 }]) {
        const common = { causal, ...(dropout ? { dropout } : {}) };
        const [a, b] = [
          await read(
            scope(() => {
              const options = tensors();
              const x = tensorOf(qkv, [B, T, H * 3 * D]);
              const dout = tensorOf(normals(B * T * H * D, 99), [B, T, H * D]);
              const { out, lse } = attention(x, { heads: H, ...options });
              return { out, lse, dqkv: attentionBackward(dout, { qkv: x, out, lse }, { heads: H, ...options }) };
            }),
          ),
          await sparse({ B, H, D, qkv }, layout, tensors()),
        ];
        for (const name of ['out', 'lse', 'dqkv'] as const) expectNear(b[name], a[name]);

        function tensors() {
          return {
            ...common,
            slopes: tensorOf(alibiSlopes(H), [H]),
            mask: tensorOf(mask, [B, T], 'u8'),
          };
        }
      }
  });

  it('equals a mask of tokens added to all blocks, causal or not, with padding and rows of nothing', async () => {
    for (const block of [16, 32, 64] as const) {
      const [H, D, N] = [2, 24, 7];
      const T = N * block;
      const qkv = normals(T * H * 3 * D, block + 1);
      using some = new BlockLayout(drawing(block, N, H, mixed));
      using all = new BlockLayout(drawing(block, N, H, () => true));
      const bias = normals(T * T, 4);
      const hidden = bias.map((x, i) =>
        mixed(Math.floor(i / T / block), Math.floor((i % T) / block)) ? x : -Infinity,
      );
      const mask = Float64Array.from({ length: T }, (_, j) => Number(j % 5 !== 1));
      for (const causal of [true, false]) {
        const options = (added: Float64Array) => ({
          causal,
          added: tensorOf(added, [1, T, T]),
          mask: tensorOf(mask, [1, T], 'u8'),
        });
        const [a, b] = [
          await sparse({ H, D, qkv }, some, options(bias)),
          await sparse({ H, D, qkv }, all, options(hidden)),
        ];
        for (const name of ['out', 'lse', 'dqkv'] as const) expectNear(a[name], b[name]);
        // The row of nothing.
        expect(new Set(a.lse.subarray(2 * block, 3 * block))).toEqual(new Set([-Infinity]));
        expect(new Set(a.out.subarray(2 * block * H * D, 3 * block * H * D))).toEqual(new Set([0]));
      }
    }
  });

  it('is block_sdd, block_softmax and block_dsd behind each other', async () => {
    const [B, H, D, block, N] = [2, 3, 40, 16, 6];
    const T = N * block;
    using layout = new BlockLayout({
      ...drawing(block, N, H, mixed),
      layouts: [drawing(block, N, 1, mixed).layouts[0]!, drawing(block, N, 1, (r, c) => (r + c) % 3 !== 0).layouts[0]!],
      headLayout: [1, 0, 1],
    });
    const qkv = normals(B * T * H * 3 * D, 17);
    const part = (which: number) =>
      Float64Array.from({ length: B * H * T * D }, (_, i) => {
        const [d, t, h, b] = [i % D, Math.floor(i / D) % T, Math.floor(i / D / T) % H, Math.floor(i / D / T / H)];
        return qkv[(((b * T + t) * H + h) * 3 + which) * D + d]!;
      });
    const out = await scope(() => {
      const [q, k, v] = [0, 1, 2].map((which) => tensorOf(part(which), [B, H, T, D])) as [Tensor, Tensor, Tensor];
      const s = blockSdd(q, k, layout, { transposeB: true });
      return blockDsd(blockSoftmax(s, layout, { scale: 0.3, causal: true }), v, layout);
    }).numbers();
    const fused = (await sparse({ B, H, D, qkv }, layout, { scale: 0.3, causal: true })).out;
    const turned = Float64Array.from({ length: out.length }, (_, i) => {
      const [d, h, t, b] = [i % D, Math.floor(i / D) % H, Math.floor(i / D / H) % T, Math.floor(i / D / H / T)];
      return out[((b * H + h) * T + t) * D + d]!;
    });
    expectNear(fused, turned);
  });

  it('gives the bits of a sequence whatever its neighbours in the batch', async () => {
    const [H, D, block, N] = [2, 16, 32, 6];
    const width = N * block * H * 3 * D;
    using layout = new BlockLayout(drawing(block, N, H, mixed));
    const together = await sparse({ B: 2, H, D, qkv: normals(2 * width, 5) }, layout, {});
    const alone = await sparse({ H, D, qkv: normals(2 * width, 5).subarray(0, width) }, layout, {});
    expect(together.out.subarray(0, alone.out.length)).toEqual(alone.out);
    expect(together.dqkv.subarray(0, width)).toEqual(alone.dqkv);
  });
});

describe('the blocks of attention', () => {
  it('that a causal call cannot see are not looked at', async () => {
    const [H, D, block, N] = [1, 16, 64, 4];
    using whole = new BlockLayout(drawing(block, N, H, () => true));
    using lower = new BlockLayout(drawing(block, N, H, (r, c) => c <= r));
    const qkv = normals(N * block * 3 * D, 6);
    expect(await sparse({ H, D, qkv }, whole, {})).toEqual(await sparse({ H, D, qkv }, lower, {}));
  });

  it('let a NaN through to the tokens that see it, and to no other', async () => {
    const [H, D, block, N] = [1, 16, 16, 8];
    using layout = new BlockLayout(drawing(block, N, H, (r, c) => r === c || c === 0));
    const qkv = normals(N * block * 3 * D, 6);
    qkv[(3 * block * 3 + 1) * D] = Number.NaN; // in the key of the first token of block 3
    const { out } = await sparse({ H, D, qkv }, layout, {});
    const bad = Array.from({ length: N * block }, (_, t) => Number.isNaN(out[t * D]!));
    expect(bad).toEqual(Array.from({ length: N * block }, (_, t) => Math.floor(t / block) === 3));
  });
});

describe('far blocks under steep slopes', () => {
  const [H, D, block, N] = [1, 16, 16, 40];
  const T = N * block;

  /** Output and gradient of the last row of blocks, which sees itself and tokens 48 to 111, on a device. */
  async function far(name: 'cpu' | 'ref', qkv: Float64Array, added?: Float64Array) {
    using layout = new BlockLayout(drawing(block, N, H, (r, c) => r === c || (r === N - 1 && c >= 3 && c <= 6)));
    const made = scope(() => {
      const tensor = (values: ArrayLike<number>, shape: number[]) => Tensor.from(values, shape, { device: name });
      const x = tensor(qkv, [1, T, 3 * D]);
      const options = { slopes: tensor([0.5], [1]), ...(added ? { added: tensor(added, [1, T, T]) } : {}) };
      const { out, lse } = sparseAttention(x, layout, options);
      const dout = tensor(normals(T * D, 2), [1, T, D]);
      return { out, lse, dqkv: sparseAttentionBackward(dout, { qkv: x, out, lse }, layout, options) };
    });
    return read(made);
  }

  it('count where their keys are long, also in the second half of a merged tile', async () => {
    const qkv = normals(T * 3 * D, 3);
    // The queries of the last block and the keys from token 64 on point the same way.
    for (let t = 0; t < T; t++)
      for (let d = 0; d < D; d++) {
        if (t >= T - block) qkv[t * 3 * D + d] = 10;
        if (t >= 64 && t < 112) qkv[(t * 3 + 1) * D + d] = 8 + (t % 7);
      }
    const [cpu, exact] = [await far('cpu', qkv), await far('ref', qkv)];
    // Scores of some hundreds have 3e-5 in their last digit.
    for (const name of ['out', 'lse', 'dqkv'] as const) expectNear(cpu[name], exact[name], 1e-4);
    // They do matter: without them the last block would see itself alone.
    expect(exact.lse.at(-1)).toBeGreaterThan(100);
  });

  it('count where an added bias lifts them', async () => {
    const qkv = normals(T * 3 * D, 3);
    const added = Float64Array.from({ length: T * T }, (_, i) => (i % T < 112 && i >= (T - block) * T ? 300 : 0));
    const [cpu, exact] = [await far('cpu', qkv, added), await far('ref', qkv, added)];
    // Scores of some hundreds have 3e-5 in their last digit.
    for (const name of ['out', 'lse', 'dqkv'] as const) expectNear(cpu[name], exact[name], 1e-4);
    expect(exact.lse.at(-1)).toBeGreaterThan(10);
  });
});

describe('the memory of sparse attention', () => {
  const [H, D] = [8, 64];

  /** The most bytes of tensors at any time of `fn`, on the device that only counts. */
  function peakOf(fn: () => void): number {
    const nothing = device('null');
    const before = nothing.account().live;
    nothing.resetPeak();
    scope(() => void fn());
    return nothing.account().peak - before;
  }

  const band = (N: number) => drawing(64, N, H, (r, c) => r - c >= 0 && r - c <= 1);

  function fused(T: number, layout?: BlockLayout): number {
    return peakOf(() => {
      const qkv = Tensor.empty([1, T, H * 3 * D], { device: 'null' });
      const { out, lse } = layout ? sparseAttention(qkv, layout) : attention(qkv, { heads: H });
      const dout = Tensor.empty(out.shape, { device: 'null' });
      const saved = { qkv, out, lse };
      if (layout) sparseAttentionBackward(dout, saved, layout);
      else attentionBackward(dout, saved, { heads: H });
    });
  }

  /** Attention as written: scores, probabilities and the gradients of both, of all pairs. */
  function materialised(T: number): number {
    using all = new BlockLayout(drawing(64, T / 64, H, () => true));
    return peakOf(() => {
      const [q, k, v, dout] = [0, 1, 2, 3].map(() => Tensor.empty([1, H, T, D], { device: 'null' })) as Tensor[];
      const s = blockSdd(q!, k!, all, { transposeB: true });
      const p = blockSoftmax(s, all, { causal: true });
      drop(s);
      blockDsd(p, v!, all);
      const dp = blockSdd(dout!, v!, all, { transposeB: true });
      const ds = blockSoftmaxBackward(dp, p, all);
      drop(dp);
      for (const transposeS of [false, true]) blockDsd(ds, transposeS ? q! : k!, all, { transposeS });
      blockDsd(p, dout!, all, { transposeS: true });
    });
  }

  it('is that of flash attention: ten times the tokens in the bytes of all scores', () => {
    for (const T of [2048, 4096]) {
      using layout = new BlockLayout(band((10 * T) / 64));
      expect(fused(10 * T, layout)).toBeLessThanOrEqual(materialised(T));
      // Beside the lists of blocks, to the byte.
      const lists = layout.tensorsOn('null').reduce((sum, { numel }) => sum + 4 * numel, 0);
      expect(fused(10 * T, layout)).toBe(fused(10 * T));
      expect(lists).toBeLessThan(0.001 * fused(10 * T));
    }
  });
});

describe('sparse attention', () => {
  it('says which argument is wrong, and how', () => {
    using layout = new BlockLayout(drawing(16, 3, 2, mixed));
    const qkv = Tensor.empty([1, 48, 2 * 3 * 8]);
    const refused =
      (options: SparseAttentionOptions, tensor = qkv) =>
      () =>
        sparseAttention(tensor, layout, options);
    expect(refused({}, Tensor.empty([1, 40, 48]))).toThrow(
      "sparse_attention: expected 48 tokens, the layout's 3 blocks of 16, got 40 in qkv [1, 40, 48]",
    );
    expect(refused({}, Tensor.empty([1, 48, 50]))).toThrow('a last dim of qkv that is 2 heads * 3 * head size');
    expect(refused({ added: Tensor.empty([3, 48, 48]) })).toThrow('expected [2, 48, 48] for added, got [3, 48, 48]');
    expect(refused({ added: Tensor.empty([1, 48, 48], { dtype: 'bf16' }) })).toThrow('expected f32 for added');
    expect(refused({ mask: Tensor.empty([1, 47], { dtype: 'u8' }) })).toThrow('expected [1, 48] for mask');
    expect(refused({ slopes: Tensor.empty([3]) })).toThrow('expected [2] for slopes');
    expect(refused({ dropout: { p: 1, seed: 0, offset: 0 } })).toThrow('expected 0 <= p < 1 for dropout');
    const { out, lse } = sparseAttention(qkv, layout);
    expect(() => sparseAttentionBackward(Tensor.empty([1, 48, 8]), { qkv, out, lse }, layout)).toThrow(
      'sparse_attention_backward: expected [1, 48, 16] for dout',
    );
    const s = Tensor.empty([1, layout.nonzeroBlocks - 1, 16, 16]);
    expect(() => blockSoftmax(s, layout)).toThrow(`block_softmax: expected [*, ${layout.nonzeroBlocks}, 16, 16] for s`);
    const a = Tensor.empty([1, 2, 48, 5]);
    expect(() => blockSdd(a, Tensor.empty([1, 2, 48, 5]), layout)).toThrow('expected [1, 2, 5, 48] for b');
    expect(() => blockDsd(s, a, layout)).toThrow('expected [1, 10, 16, 16] for s');
  });
});
