import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Random } from '../../csrc/kernels/common/cases';
import { cpuFeatures } from '../index';
import { native } from '../loader';
import type { DType } from '../tensor/dtype';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { type AttentionOptions, alibiSlopes, attention, attentionBackward, attentionCached } from './attention';

const golden = path.resolve(__dirname, '../../../../test/golden');
const { isa: best, supported } = cpuFeatures();

afterEach(() => native.set_isa(best));

function normals(n: number, seed: number, factor = 1): Float64Array {
  const random = new Random(seed);
  const values = new Float64Array(n);
  for (let i = 0; i < n; i++) values[i] = factor * random.normal();
  return values;
}

interface Shape {
  T: number;
  H: number;
  D: number;
  dtype?: DType;
}

/** Sequences numbered by their contents: number s always holds the same tokens, gradients and padding. */
interface Sequences extends Shape {
  which: number[];
  slopes?: number[];
  padded?: boolean;
  dropout?: AttentionOptions['dropout'];
}

function isReal(sequence: number, t: number): boolean {
  return sequence % 3 === 0 || (sequence % 3 === 1 ? t >= sequence + 2 : (t + sequence) % 4 !== 1);
}

function stack(which: number[], each: (sequence: number) => ArrayLike<number>): Float64Array {
  const rows = which.map((s) => Float64Array.from(each(s)));
  const all = new Float64Array(rows.reduce((n, row) => n + row.length, 0));
  rows.reduce((at, row) => {
    all.set(row, at);
    return at + row.length;
  }, 0);
  return all;
}

function tensors({ which, T, H, D, dtype = 'f32', slopes, padded }: Sequences) {
  const B = which.length;
  const mask = stack(which, (s) => Array.from({ length: T }, (_, t) => Number(!padded || isReal(s, t))));
  return {
    qkv: Tensor.from(
      stack(which, (s) => normals(T * H * 3 * D, 2 * s)),
      [B, T, H * 3 * D],
      { dtype },
    ),
    dout: Tensor.from(
      stack(which, (s) => normals(T * H * D, 2 * s + 1)),
      [B, T, H * D],
      { dtype },
    ),
    slopes: Tensor.from(slopes ?? alibiSlopes(H), [H]),
    mask: Tensor.from(mask, [B, T], { dtype: 'u8' }),
  };
}

/** Runs forward and backward, and gives the bits of each sequence apart. */
async function run(sequences: Sequences): Promise<Record<'out' | 'lse' | 'dqkv', Uint8Array>[]> {
  const made = scope(() => {
    const { qkv, dout, slopes, mask } = tensors(sequences);
    const { dropout } = sequences;
    const options = { heads: sequences.H, slopes, mask, ...(dropout ? { dropout } : {}) };
    const { out, lse } = attention(qkv, options);
    return { out, lse, dqkv: attentionBackward(dout, { qkv, out, lse }, options) };
  });
  const bytes = { out: await bytesOf(made.out), lse: await bytesOf(made.lse), dqkv: await bytesOf(made.dqkv) };
  for (const tensor of Object.values(made)) tensor.dispose();
  const part = (all: Uint8Array, i: number) =>
    all.slice((i * all.length) / sequences.which.length, ((i + 1) * all.length) / sequences.which.length);
  return sequences.which.map((_, i) => ({
    out: part(bytes.out, i),
    lse: part(bytes.lse, i),
    dqkv: part(bytes.dqkv, i),
  }));
}

async function bytesOf(tensor: Tensor): Promise<Uint8Array> {
  const values = await tensor.read();
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Feeds the tokens of `sequences` to a cache in steps and gives the bits of all outputs, [B, T, H * D]. */
async function runCached(sequences: Sequences, steps: number[]): Promise<Uint8Array> {
  const { which, T, H, D, dtype = 'f32' } = sequences;
  const B = which.length;
  const capacity = T + 5;
  const { qkv, slopes, mask } = tensors(sequences);
  const all = await qkv.numbers();
  const keys = Tensor.from(new Float64Array(B * H * capacity * D).fill(Number.NaN), [B, H, capacity, D], { dtype });
  const values = Tensor.from(new Float64Array(B * H * capacity * D).fill(Number.NaN), [B, H, capacity, D], { dtype });
  const pieces: { past: number; bytes: Uint8Array }[] = [];
  for (let past = 0, i = 0; past < T; i++) {
    const n = Math.min(steps[i % steps.length]!, T - past);
    const width = H * 3 * D;
    const fresh = stack(
      which.map((_, b) => b),
      (b) => all.subarray((b * T + past) * width, (b * T + past + n) * width),
    );
    const out = attentionCached(Tensor.from(fresh, [B, n, width], { dtype }), keys, values, {
      heads: H,
      slopes,
      mask,
      past,
    });
    pieces.push({ past, bytes: await bytesOf(out) });
    past += n;
  }
  const token = pieces.reduce((n, p) => n + p.bytes.length, 0) / (B * T);
  const joined = new Uint8Array(B * T * token);
  for (const { past, bytes } of pieces)
    for (let b = 0; b < B; b++)
      joined.set(bytes.subarray((b * bytes.length) / B, ((b + 1) * bytes.length) / B), (b * T + past) * token);
  return joined;
}

describe('alibiSlopes', () => {
  it('gives the slopes of BLOOM for 21 head counts', () => {
    const formulas = JSON.parse(readFileSync(path.join(golden, 'formulas.json'), 'utf8')) as {
      alibi_slopes: Record<string, number[]>;
    };
    const counts = Object.keys(formulas.alibi_slopes);
    expect(counts).toHaveLength(21);
    for (const heads of counts) {
      const slopes = alibiSlopes(Number(heads));
      const golden = formulas.alibi_slopes[heads]!;
      expect(slopes).toHaveLength(golden.length);
      // Two libraries' powers may differ in the last bit of a double.
      slopes.forEach((slope, i) => {
        expect(Math.abs(slope / golden[i]! - 1)).toBeLessThanOrEqual(2 ** -51);
        expect(Math.fround(slope)).toBe(Math.fround(golden[i]!));
      });
    }
  });
});

describe('attention', () => {
  for (const isa of supported) {
    it(`gives a sequence the same bits alone and in a batch, whole heads to a thread or not: ${isa}`, async () => {
      native.set_isa(isa);
      for (const shape of [
        { T: 300, H: 2, D: 20, padded: true },
        { T: 300, H: 2, D: 16, padded: true, dtype: 'bf16' as const },
        { T: 70, H: 1, D: 80, padded: true },
      ]) {
        // 17 sequences of 2 heads are worked a head a thread, one sequence is cut into groups of keys.
        const which = Array.from({ length: 17 }, (_, i) => i);
        const together = await run({ ...shape, which });
        for (const s of [0, 1, 2, 16]) expect(together[s]).toEqual((await run({ ...shape, which: [s] }))[0]);
      }
    });

    it(`gives a token the same bits whatever follows it: ${isa}`, async () => {
      native.set_isa(isa);
      const { H, D } = { H: 8, D: 24 };
      const whole = (await run({ which: [1], T: 200, H, D }))[0]!;
      for (const T of [1, 63, 64, 65, 130]) {
        const short = scope(() => attention(prefix(1, 200, T, H, D), { heads: H, slopes: slopesOf(H) }).out);
        expect(await bytesOf(short)).toEqual(whole.out.slice(0, T * H * D * 4));
        short.dispose();
      }
    });

    it(`gives the same bits with a cache, in any steps: ${isa}`, async () => {
      native.set_isa(isa);
      for (const sequences of [
        { which: [0, 1, 2], T: 90, H: 3, D: 20, padded: true },
        { which: [1, 2], T: 90, H: 2, D: 16, padded: true, dtype: 'bf16' as const },
        { which: [0], T: 90, H: 2, D: 80, dtype: 'f16' as const },
        // Steep: the strips skip far blocks, the single steps look at every key.
        { which: [3], T: 500, H: 2, D: 16, slopes: [1, 0.3] },
      ]) {
        const whole = stackBytes((await run(sequences)).map((s) => s.out));
        for (const steps of [[1], [sequences.T], [17, 1, 3, 30, 4]])
          expect(await runCached(sequences, steps)).toEqual(whole);
      }
    });
  }

  it('gives padded sequences the values of unpadded ones, for padding on either side and between', async () => {
    const { T, H, D } = { T: 20, H: 6, D: 16 };
    const width = H * 3 * D;
    const tokens = normals(T * width, 5);
    const slopes = slopesOf(H);
    const alone = await attention(Tensor.from(tokens, [1, T, width]), { heads: H, slopes }).out.numbers();
    for (const places of [
      Array.from({ length: T }, (_, t) => t + 9),
      Array.from({ length: T }, (_, t) => t),
      Array.from({ length: T }, (_, t) => t + Math.floor(t / 2)),
    ]) {
      const long = 29;
      const padded = normals(long * width, 6, 3);
      const mask = new Array<number>(long).fill(0);
      for (const [t, place] of places.entries()) {
        padded.set(tokens.subarray(t * width, (t + 1) * width), place * width);
        mask[place] = 1;
      }
      const out = await attention(Tensor.from(padded, [1, long, width]), {
        heads: H,
        slopes,
        mask: Tensor.from(mask, [1, long], { dtype: 'u8' }),
      }).out.numbers();
      for (const [t, place] of places.entries())
        for (let i = 0; i < H * D; i++)
          expect(Math.abs(out[place * H * D + i]! - alone[t * H * D + i]!)).toBeLessThanOrEqual(2e-6);
    }
  });

  it('gives zeros, -inf and no gradient where no token is real', async () => {
    const { T, H, D } = { T: 70, H: 2, D: 16 };
    const qkv = Tensor.from(normals(T * H * 3 * D, 1), [1, T, H * 3 * D]);
    const mask = Tensor.from(new Float64Array(T), [1, T], { dtype: 'u8' });
    const options = { heads: H, slopes: slopesOf(H), mask };
    const { out, lse } = attention(qkv, options);
    const dout = Tensor.from(normals(T * H * D, 2), [1, T, H * D]);
    const dqkv = attentionBackward(dout, { qkv, out, lse }, options);
    expect([...new Set(await out.numbers())]).toEqual([0]);
    expect([...new Set(await lse.numbers())]).toEqual([Number.NEGATIVE_INFINITY]);
    expect([...new Set(Array.from(await dqkv.numbers(), Math.abs))]).toEqual([0]);
  });

  it('stays finite and right when one score towers over all others', async () => {
    const { T, H, D } = { T: 66, H: 1, D: 16 };
    const qkv = Tensor.from(normals(T * 3 * D, 3, 1000), [1, T, 3 * D]);
    const reference = Tensor.from(await qkv.numbers(), [1, T, 3 * D], { device: 'ref' });
    const out = await attention(qkv, { heads: H }).out.numbers();
    const exact = await attention(reference, { heads: H }).out.numbers();
    for (const [i, x] of exact.entries()) expect(Math.abs(out[i]! - x)).toBeLessThanOrEqual(1e-3 * Math.abs(x) + 1e-3);
  });

  it('lets a NaN through to the tokens that see it, and to no other', async () => {
    const { T, D } = { T: 80, D: 16 };
    const values = normals(T * 3 * D, 4);
    values[70 * 3 * D + D] = Number.NaN; // in the key of token 70
    const out = await attention(Tensor.from(values, [1, T, 3 * D]), { heads: 1, slopes: slopesOf(1) }).out.numbers();
    const bad = Array.from({ length: T }, (_, t) => Number.isNaN(out[t * D]!));
    expect(bad).toEqual(Array.from({ length: T }, (_, t) => t >= 70));
  });

  it('drops the same probabilities on cpu and ref, numbered by (b, h, i, j)', async () => {
    // With the unit vectors as values, out is the matrix of probabilities itself.
    for (const T of [24, 23]) {
      const [B, H, D, p] = [2, 3, 24, 0.4];
      const values = normals(B * T * H * 3 * D, 8);
      for (let row = 0; row < B * T * H; row++)
        for (let d = 0; d < D; d++) values[(row * 3 + 2) * D + d] = Number(d === Math.floor(row / H) % T);
      const kept = async (device: 'cpu' | 'ref', offset: number): Promise<boolean[]> => {
        const qkv = Tensor.from(values, [B, T, H * 3 * D], { device });
        const options = { heads: H, causal: false, dropout: { p, seed: 2 ** 33 + 7, offset } };
        const out = await attention(qkv, options).out.numbers();
        return Array.from({ length: B * H * T * T }, (_, e) => {
          const [j, i, h, b] = [e % T, Math.floor(e / T) % T, Math.floor(e / T / T) % H, Math.floor(e / T / T / H)];
          return out[((b * T + i) * H + h) * D + j] !== 0;
        });
      };
      const reference = await kept('ref', 1000);
      const share = reference.filter(Boolean).length / reference.length;
      expect(Math.abs(share - (1 - p))).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / reference.length));
      for (const isa of supported) {
        native.set_isa(isa);
        expect(await kept('cpu', 1000)).toEqual(reference);
        expect((await kept('cpu', 1001)).slice(0, -4)).toEqual(reference.slice(4));
      }
    }
  });

  it('says which argument is wrong, and how', () => {
    const qkv = Tensor.empty([2, 5, 2 * 3 * 8]);
    const refused =
      (options: Partial<AttentionOptions>, tensor = qkv) =>
      () =>
        attention(tensor, { heads: 2, ...options });
    expect(refused({ heads: 5 })).toThrow('attention: expected a last dim of qkv that is 5 heads * 3 * head size, got');
    expect(refused({ heads: 0 })).toThrow('attention: expected at least 1 head, got 0');
    expect(refused({}, qkv.view([10, 48]))).toThrow('view it as [B, T, H * 3 * D]');
    expect(refused({}, Tensor.empty([2, 5, 48], { dtype: 'i32' }))).toThrow(/expected f32 or bf16 or f16 .*for qkv/);
    expect(refused({ slopes: Tensor.empty([3]) })).toThrow('expected [2] for slopes, got [3]. one ALiBi slope a head');
    expect(refused({ slopes: Tensor.empty([2], { device: 'ref' }) })).toThrow('expected all tensors on cpu');
    expect(refused({ mask: Tensor.empty([2, 4], { dtype: 'u8' }) })).toThrow('expected [2, 5] for mask, got [2, 4]');
    expect(refused({ mask: Tensor.empty([2, 5]) })).toThrow(
      "expected u8 for mask, got f32. make it with { dtype: 'u8' }",
    );
    expect(refused({ scale: Number.NaN })).toThrow('expected a finite scale, got NaN');
    expect(refused({ dropout: { p: 1, seed: 0, offset: 0 } })).toThrow('expected 0 <= p < 1 for dropout, got 1');
    expect(refused({ dropout: { p: 0.1, seed: -1, offset: 0 } })).toThrow('for dropout.seed, got -1');
    const { out, lse } = attention(qkv, { heads: 2 });
    expect(() => attentionBackward(Tensor.empty([2, 5, 8]), { qkv, out, lse }, { heads: 2 })).toThrow(
      'attention_backward: expected [2, 5, 16] for dout, got [2, 5, 8]',
    );
    const cache = () => Tensor.empty([2, 2, 9, 8]);
    expect(() => attentionCached(qkv, cache(), cache(), { heads: 2, past: 5 })).toThrow(
      'attention_cached: expected 0 <= past and past + 5 new tokens <= 9, the capacity of the cache, got past 5',
    );
    expect(() => attentionCached(qkv, cache(), Tensor.empty([2, 2, 8, 8]), { heads: 2, past: 0 })).toThrow(
      'expected [2, 2, 9, 8] for values',
    );
  });
});

function slopesOf(H: number): Tensor {
  return Tensor.from(alibiSlopes(H), [H]);
}

/** The first T tokens of sequence `s` of `length` tokens. */
function prefix(s: number, length: number, T: number, H: number, D: number): Tensor {
  return Tensor.from(normals(length * H * 3 * D, 2 * s).subarray(0, T * H * 3 * D), [1, T, H * 3 * D]);
}

function stackBytes(parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
