import { Random } from '../../csrc/kernels/common/cases';
import { cpuFeatures, cudaDevices, type DeviceName, setThreads, threads } from '../index';
import { native } from '../loader';
import { scope } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';
import { alibiSlopes, attention } from './attention';
import { emptyPages, type PageFormat, type PageTokens, pagedAttention, pagedWrite } from './paged-attention';

const { isa: best, supported } = cpuFeatures();
const allThreads = threads();
const devices: DeviceName[] = ['cpu', 'ref', ...(cudaDevices().devices.length > 0 ? (['cuda:0'] as const) : [])];

afterEach(() => {
  setThreads(allThreads);
  native.set_isa(best);
});

interface Model {
  H: number;
  G: number;
  D: number;
  format?: PageFormat;
  alibi?: boolean;
  window?: number;
  rotary?: boolean;
}

/** The fused projections of token t of a sequence: always the same for the same number of sequence. */
function tokens(sequence: number, n: number, { H, G, D }: Model): Float64Array {
  const random = new Random(17 + sequence);
  return Float64Array.from({ length: n * (H + 2 * G) * D }, () => random.normal());
}

/** Cosines and sines for the first half of a head's elements. */
function rotaryTable(positions: number, D: number): Tensor {
  const half = Math.floor(D / 4);
  const row = (p: number) =>
    [Math.cos, Math.sin].flatMap((f) => Array.from({ length: half }, (_, i) => f(p / 100 ** (i / half))));
  return Tensor.from(Array.from({ length: positions }, (_, p) => row(p)).flat(), [positions, 2 * half]);
}

/** A pool of pages that is filled by batches, as a server does it. */
class Server {
  readonly #model: Model;
  readonly #lengths: number[];
  readonly #projections: Float64Array[];
  readonly #tables: number[][];
  readonly #past: number[];
  readonly #kv: ReturnType<typeof emptyPages>;
  readonly #rotary: Tensor;
  /** Of each sequence, the outputs of its tokens so far. */
  readonly outputs: Float32Array[][];

  constructor(model: Model, lengths: number[], page: PageTokens, sequences = lengths.map((_, s) => s)) {
    this.#model = model;
    this.#lengths = lengths;
    this.#projections = lengths.map((n, s) => tokens(sequences[s]!, n, model));
    const counts = lengths.map((n) => Math.ceil(n / page));
    const total = counts.reduce((a, b) => a + b, 0);
    const stride = [7, 11, 13, 17].find((p) => total % p !== 0)!;
    let next = 3;
    this.#tables = counts.map((n) => Array.from({ length: n }, () => (next++ * stride) % total));
    this.#past = lengths.map(() => 0);
    const { G, D, format = 'f32' } = model;
    this.#kv = emptyPages({ pages: total, keyValueHeads: G, size: D, pageTokens: page, format });
    for (const tensor of Object.values(this.#kv))
      tensor.writeBytes(
        new Uint8Array(tensor.numel * (tensor.dtype === 'f32' ? 4 : tensor.dtype === 'u8' ? 1 : 2)).fill(0xff),
      );
    this.#rotary = rotaryTable(Math.max(...lengths), D);
    this.outputs = lengths.map(() => []);
  }

  /** Runs one batch: the next `rows` tokens of each named sequence, in this order. */
  async step(batch: [sequence: number, rows: number][]): Promise<void> {
    const { H, G, D, alibi, window, rotary } = this.#model;
    const width = (H + 2 * G) * D;
    const starts = [0];
    for (const [, rows] of batch) starts.push(starts.at(-1)! + rows);
    const R = starts.at(-1)!;
    const qkv = new Float64Array(R * width);
    batch.forEach(([s, rows], i) => {
      const past = this.#past[s]!;
      qkv.set(this.#projections[s]!.subarray(past * width, (past + rows) * width), starts[i]! * width);
    });
    const columns = Math.max(1, ...batch.map(([s]) => this.#tables[s]!.length));
    const out = scope(() => {
      const numbers = (values: number[], shape: number[]) => Tensor.from(values, shape, { dtype: 'i32' });
      const rows = {
        starts: numbers(starts, [starts.length]),
        past: numbers(
          batch.map(([s]) => this.#past[s]!),
          [batch.length],
        ),
        pages: numbers(
          batch.flatMap(([s]) => Array.from({ length: columns }, (_, i) => this.#tables[s]![i] ?? -1)),
          [batch.length, columns],
        ),
      };
      const options = { heads: H, keyValueHeads: G };
      const q = pagedWrite(Tensor.from(qkv, [R, width]), this.#kv, rows, {
        ...options,
        ...(rotary ? { rotary: { table: this.#rotary } } : {}),
      });
      return pagedAttention(q, this.#kv, rows, {
        ...options,
        ...(alibi ? { slopes: Tensor.from(alibiSlopes(H), [H]) } : {}),
        ...(window ? { window } : {}),
      });
    });
    const values = await out.read<'f32'>();
    out.dispose();
    batch.forEach(([s, rows], i) => {
      this.#past[s]! += rows;
      this.outputs[s]!.push(values.slice(starts[i]! * H * D, starts[i + 1]! * H * D));
    });
  }

  /** Runs all sequences to their ends, `chunk` tokens of each a batch, and gives the bits of each. */
  async run(chunk: number, order = this.#lengths.map((_, s) => s)): Promise<Buffer[]> {
    for (;;) {
      const batch = order
        .map((s): [number, number] => [s, Math.min(chunk, this.#lengths[s]! - this.#past[s]!)])
        .filter(([, rows]) => rows > 0);
      if (batch.length === 0) break;
      await this.step(batch);
    }
    for (const tensor of [...Object.values(this.#kv), this.#rotary]) tensor.dispose();
    return this.outputs.map((parts) => Buffer.concat(parts.map((p) => Buffer.from(p.buffer))));
  }
}

const models: Record<string, Model> = {
  'ALiBi, f32': { H: 4, G: 4, D: 20, alibi: true },
  'grouped, rotary, bf16 pages': { H: 6, G: 2, D: 32, format: 'bf16', rotary: true },
  'one key-value head, f16 pages, window': { H: 3, G: 1, D: 17, format: 'f16', window: 50 },
  'grouped, i8 pages, ALiBi': { H: 4, G: 2, D: 24, format: 'i8', alibi: true, rotary: true },
};
const lengths = [130, 1, 17, 64, 570];

/** Jest compares buffers element by element, which takes seconds here. */
function expectSame(a: readonly Buffer[], b: readonly Buffer[]): void {
  expect(a.map((bytes, i) => bytes.equals(b[i]!))).toEqual(b.map(() => true));
}

describe('paged attention on the CPU', () => {
  for (const isa of supported)
    it.each(Object.keys(models))(
      `gives the same bits for every page size, chunk, order, neighbour and thread count: %s, ${isa}`,
      async (name) => {
        native.set_isa(isa);
        const model = models[name]!;
        const all = await new Server(model, lengths, 16).run(1000);
        for (const page of [8, 32] as const) expectSame(await new Server(model, lengths, page).run(1000), all);
        for (const [chunk, page] of [
          [1, 8],
          [7, 16],
          [16, 32],
          [100, 8],
        ] as const)
          expectSame(await new Server(model, lengths, page).run(chunk), all);
        expectSame(await new Server(model, lengths, 16).run(11, [4, 2, 0, 3, 1]), all);
        expectSame(await new Server(model, [570], 16, [4]).run(9), [all[4]!]);
        for (const count of [1, 2, 3]) {
          setThreads(count);
          expectSame(await new Server(model, lengths, 16).run(60), all);
        }
      },
      120000,
    );

  it('gives the same bits where the segments of a long sequence are work of their own, or of one thread', async () => {
    const model: Model = { H: 2, G: 1, D: 16, alibi: true, format: 'bf16' };
    const lengths = Array.from({ length: 17 }, () => 1300);
    const alone = new Server(model, [1300], 16, [5]);
    await alone.step([[0, 1299]]);
    await alone.step([[0, 1]]);
    const together = new Server(model, lengths, 16);
    await together.step(lengths.map((_, s) => [s, 1299]));
    await together.step(lengths.map((_, s) => [s, 1]));
    expect(together.outputs[5]).toEqual(alone.outputs[0]);
  }, 60000);

  /** The same tokens as attention() wants them: [1, T, H, 3, D]. */
  async function dense(model: Model, T: number): Promise<Float32Array> {
    const { H, D } = model;
    const all = tokens(0, T, model);
    const fused = new Float64Array(all.length);
    for (let t = 0; t < T; t++)
      for (let h = 0; h < H; h++)
        for (let which = 0; which < 3; which++)
          for (let d = 0; d < D; d++)
            fused[((t * H + h) * 3 + which) * D + d] = all[((t * 3 + which) * H + h) * D + d]!;
    using qkv = Tensor.from(fused, [1, T, H * 3 * D]);
    using slopes = Tensor.from(alibiSlopes(H), [H]);
    const { out, lse } = attention(qkv, { heads: H, ...(model.alibi ? { slopes } : {}) });
    const values = await out.read<'f32'>();
    out.dispose();
    lse.dispose();
    return values;
  }

  it.each([true, false])(
    'is attention() to the bit in the first 512 tokens, beyond within rounding: ALiBi %p',
    async (alibi) => {
      const model: Model = { H: 3, G: 3, D: 20, alibi };
      const T = 900;
      const expected = await dense(model, T);
      for (const chunk of [1000, 5]) {
        const [bytes] = await new Server(model, [T], 16).run(chunk);
        const got = new Float32Array(new Uint8Array(bytes!).buffer);
        const first = 512 * model.H * model.D;
        expect(got.subarray(0, first)).toEqual(expected.subarray(0, first));
        // A mean of up to 900 values of size 1: 2^-24 a rounding.
        got.forEach((x, i) => {
          if (!(Math.abs(x - expected[i]!) <= 2e-6))
            throw new Error(`element ${i} is ${x}, attention() has ${expected[i]}`);
        });
      }
    },
    60000,
  );
});

describe('pagedWrite', () => {
  it('writes bytes whose scale is the largest magnitude / 127, and NaN for a head that is not finite', async () => {
    const D = 4;
    const row = [0, 0, 0, 0, /* key */ 1, -2, 0.5, 0.004, /* value */ 0, 0, 0, 0];
    const bad = [0, 0, 0, 0, /* key */ 1, Number.NaN, 0, 0, /* value */ Number.NEGATIVE_INFINITY, 1, 2, 3];
    for (const device of devices) {
      const kv = emptyPages({ pages: 2, keyValueHeads: 1, size: D, pageTokens: 8, format: 'i8', device });
      const numbers = (values: number[], shape: number[]) => Tensor.from(values, shape, { dtype: 'i32', device });
      const rows = { starts: numbers([0, 1, 2], [3]), past: numbers([0, 0], [2]), pages: numbers([0, 1], [2, 1]) };
      const qkv = Tensor.from([...row, ...bad], [2, 3 * D], { device });
      const q = pagedWrite(qkv, kv, rows, { heads: 1 });
      const keys = await kv.keys.numbers();
      expect([0, 1, 2, 3].map((d) => keys[d * 8])).toEqual([64, 129, 32, 0]);
      const keyScales = await kv.keyScales!.numbers();
      const valueScales = await kv.valueScales!.numbers();
      expect([keyScales[0], valueScales[0]]).toEqual([Math.fround(2 / 127), 0]);
      expect([keyScales[8], valueScales[8]]).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
      expect([...(await pagedAttention(q, kv, rows, { heads: 1 }).numbers())]).toEqual([
        0,
        0,
        0,
        0,
        ...Array(4).fill(Number.NaN),
      ]);
    }
  });
});

describe('what the paged ops refuse', () => {
  const make = (
    device: DeviceName,
    {
      starts = [0, 1, 4],
      past = [3, 20],
      pages = [
        [0, -1],
        [2, 1],
      ],
      longest,
    }: { starts?: number[]; past?: number[]; pages?: number[][]; longest?: number } = {},
  ) => {
    const numbers = (values: number[], shape: number[]) => Tensor.from(values, shape, { dtype: 'i32', device });
    const R = 4;
    const rows = {
      starts: numbers(starts, [starts.length]),
      past: numbers(past, [past.length]),
      pages: numbers(pages.flat(), [pages.length, pages[0]!.length]),
      ...(longest === undefined ? {} : { longest }),
    };
    const kv = emptyPages({ pages: 3, keyValueHeads: 1, size: 8, device });
    for (const tensor of [kv.keys, kv.values]) tensor.write(new Float64Array(tensor.numel));
    const qkv = Tensor.from(new Float64Array(R * 32).fill(1), [R, 32], { device });
    const q = Tensor.from(new Float64Array(R * 16), [R, 16], { device });
    return { rows, kv, qkv, q };
  };
  const heads = { heads: 2, keyValueHeads: 1 };

  const faults: [string, Parameters<typeof make>[1], string][] = [
    [
      'starts that fall',
      { starts: [0, 5, 4] },
      'starts that begin with 0, never fall and end with R = 4, got 4 for sequence 1',
    ],
    ['starts that do not begin with 0', { starts: [1, 2, 4] }, 'never fall and end with R = 4, got 1 for sequence 0'],
    ['starts that do not end with R', { starts: [0, 1, 3] }, 'end with R = 4, got 3 for sequence 1'],
    ['a sequence longer than longest', { longest: 2 }, 'at most longest = 2 rows a sequence, got 3 for sequence 1'],
    ['a negative past', { past: [3, -1] }, 'tokens from 0 to 32, which the table has pages for, got -1 for sequence 1'],
    ['more tokens than the table has', { past: [3, 30] }, 'tokens from 0 to 32, which the table has pages for, got 33'],
    [
      'a page beyond the pool',
      {
        pages: [
          [0, 9],
          [2, 3],
        ],
      },
      'page ids from 0 to 2, got 3 for sequence 1',
    ],
    [
      'a negative page',
      {
        pages: [
          [-1, 0],
          [2, 1],
        ],
      },
      'page ids from 0 to 2, got -1 for sequence 0',
    ],
  ];
  for (const name of devices) {
    it.each(faults)(`%s (${name})`, async (_, numbers, message) => {
      const { rows, kv, qkv, q } = make(name, numbers);
      pagedWrite(qkv, kv, rows, heads);
      await expect(qkv.device.stream.join()).rejects.toThrow(message);
      pagedAttention(q, kv, rows, heads);
      await expect(qkv.device.stream.join()).rejects.toThrow(message);
      if (name !== 'cuda:0') expect(Math.max(...(await kv.keys.numbers()), ...(await kv.values.numbers()))).toBe(0);
    });

    it(`positions beyond the rotary table (${name})`, async () => {
      const { rows, kv, qkv } = make(name);
      const table = (positions: number) =>
        Tensor.from(new Float64Array(positions * 8), [positions, 8], { device: name });
      pagedWrite(qkv, kv, rows, { ...heads, rotary: { table: table(23) } });
      await qkv.device.stream.join();
      pagedWrite(qkv, kv, rows, { ...heads, rotary: { table: table(22) } });
      await expect(qkv.device.stream.join()).rejects.toThrow(
        'paged_write: expected positions below 22, the rows of the rotary table, got 22 for sequence 1',
      );
    });
  }

  it('shapes, dtypes and options that do not fit', () => {
    const { rows, kv, qkv, q } = make('cpu');
    const i8 = emptyPages({ pages: 3, keyValueHeads: 1, size: 8, format: 'i8' });
    expect(() => pagedWrite(qkv, kv, rows, { heads: 3, keyValueHeads: 2 })).toThrow('a multiple of keyValueHeads');
    expect(() => pagedWrite(qkv, kv, rows, { heads: 3, keyValueHeads: 1 })).toThrow('[4, 40] for qkv, got [4, 32]');
    expect(() => pagedWrite(qkv, kv, rows, { heads: 2 })).toThrow('[*, 2, *, *] for keys, got [3, 1, 8, 16]');
    expect(() => pagedWrite(qkv, { ...kv, keyScales: i8.keyScales! }, rows, heads)).toThrow('keyScales beside f32');
    expect(() => pagedAttention(q, { keys: i8.keys, values: i8.values }, rows, heads)).toThrow('got none');
    expect(() => pagedAttention(q, kv, { ...rows, starts: rows.past }, heads)).toThrow('[3] for rows.starts, got [2]');
    expect(() => pagedAttention(q, kv, { ...rows, past: Tensor.empty([2]) }, heads)).toThrow(
      'i32 for rows.past, got f32',
    );
    expect(() => pagedAttention(q, kv, { ...rows, longest: 5 }, heads)).toThrow('rows.longest from 0 to R = 4, got 5');
    expect(() => pagedAttention(q, kv, rows, { ...heads, window: 0 })).toThrow('a window of at least 1 token, got 0');
    expect(() => pagedAttention(q, kv, rows, { ...heads, scale: Number.NaN })).toThrow('a finite scale, got NaN');
    expect(() => pagedAttention(q, kv, rows, { ...heads, slopes: Tensor.empty([3]) })).toThrow(
      '[2] for slopes, got [3]',
    );
    const odd = Tensor.empty([30, 7]);
    expect(() => pagedWrite(qkv, kv, rows, { ...heads, rotary: { table: odd } })).toThrow('an even number of columns');
    const norm = Tensor.empty([5]);
    expect(() => pagedWrite(qkv, kv, rows, { ...heads, queryNorm: norm })).toThrow('[16] for queryNorm, got [5]');
    const half = Tensor.empty([4, 16], { dtype: 'bf16' });
    expect(() => pagedAttention(half, kv, rows, heads)).toThrow('bf16 or u8 for keys, got f32');
    expect(() => emptyPages({ pages: 3, keyValueHeads: 1, size: -8 })).toThrow('whole dims');
  });
});
