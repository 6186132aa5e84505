import { device, withOwner } from '../device';
import { DsError } from '../errors';
import { fill } from '../ops/elementwise';
import { drop, keep, scope } from './scope';
import { liveTensors, Tensor } from './tensor';

function refusal(fn: () => unknown): DsError {
  try {
    fn();
  } catch (error) {
    if (DsError.is(error)) return error;
    throw error;
  }
  throw new Error('nothing was refused');
}

describe('a tensor', () => {
  it('keeps numbers, rounded to its dtype, on cpu and ref', async () => {
    for (const name of ['cpu', 'ref'] as const) {
      using exact = Tensor.from([1, -2.5, 2 ** 34], [3], { device: name });
      using half = Tensor.from([1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -0, Number.NaN], [5], { dtype: 'bf16', device: name });
      expect([...(await exact.numbers())]).toEqual([1, -2.5, 2 ** 34]);
      // 8 bits of fraction: ties go to the even neighbour
      expect([...(await half.numbers())]).toEqual([1, 1, 1 + 2 ** -6, -0, Number.NaN]);
    }
  });

  it('shares memory with its views, which hold it alive', async () => {
    const whole = Tensor.from([0, 1, 2, 3, 4, 5], [6]);
    using tail = whole.view([2, 2], 2);
    whole.dispose();
    using row = tail.view([2], 2);
    fill(row, 9);
    expect([...(await tail.read())]).toEqual([2, 3, 9, 9]);
  });

  it('refuses views that leave it', () => {
    using t = Tensor.empty([2, 3]);
    expect(refusal(() => t.view([4], 3)).code).toBe('SHAPE');
    expect(refusal(() => t.view([1], -1)).code).toBe('SHAPE');
    expect(refusal(() => Tensor.empty([-1])).code).toBe('SHAPE');
  });

  it('is recognised after it was disposed, also when its slot was taken again', () => {
    const old = Tensor.empty([1]);
    old.dispose();
    using _next = Tensor.empty([1]);
    expect(refusal(() => fill(old, 1)).code).toBe('DISPOSED');
    expect(refusal(() => old.dispose()).code).toBe('DISPOSED');
  });

  it('lives until its last reference is gone', () => {
    const before = liveTensors();
    const t = Tensor.empty([1]).retain();
    t.dispose();
    expect(liveTensors()).toBe(before + 1);
    t.dispose();
    expect(liveTensors()).toBe(before);
  });

  it('may be empty', async () => {
    using t = Tensor.from([], [0, 7]);
    expect((await t.read()).length).toBe(0);
  });
});

describe('a scope', () => {
  it('disposes what was made inside and hands out its result, also in arrays and objects', () => {
    const before = liveTensors();
    const made = scope(() => {
      Tensor.empty([1]);
      return { a: [Tensor.empty([1])], b: Tensor.empty([1]) };
    });
    expect(liveTensors()).toBe(before + 2);
    made.a[0]!.dispose();
    made.b.dispose();
    expect(liveTensors()).toBe(before);
  });

  it('hands results to the scope around it, and nothing of what was kept or dropped', () => {
    const before = liveTensors();
    let kept: Tensor | undefined;
    scope(() => {
      scope(() => Tensor.empty([1]));
      kept = keep(Tensor.empty([1]));
      drop(Tensor.empty([1]));
    });
    expect(liveTensors()).toBe(before + 1);
    kept!.dispose();
  });

  it('disposes when the function throws', () => {
    const before = liveTensors();
    expect(() =>
      scope(() => {
        Tensor.empty([1]);
        throw new Error('on purpose');
      }),
    ).toThrow('on purpose');
    expect(liveTensors()).toBe(before);
  });
});

describe('the account of a device', () => {
  it('books bytes by owner, live and at most, in blocks of 256', () => {
    const d = device('null');
    d.resetPeak();
    const start = d.account();
    const a = withOwner('weights', () => Tensor.empty([1000], { device: d }));
    const b = withOwner('weights', () => Tensor.empty([1], { device: d, dtype: 'u8' }));
    a.dispose();
    const now = d.account();
    expect(now.live - start.live).toBe(256);
    expect(now.peak - start.live).toBe(4096 + 256);
    expect(now.owners.weights).toEqual({ live: 256, peak: 4096 + 256 });
    b.dispose();
  });

  it('refuses what passes the limit, names the largest owners, and goes on', () => {
    const d = device('null');
    const start = d.account().live;
    d.setLimit(start + 10_000);
    using held = withOwner('activations', () => Tensor.empty([2000], { device: d }));
    const error = refusal(() => Tensor.empty([1000], { device: d }));
    expect(error.code).toBe('OOM');
    expect(error.hint).toMatch(/largest owners in bytes: activations 8192/);
    using small = Tensor.empty([10], { device: d });
    d.setLimit(Number.POSITIVE_INFINITY);
    using large = Tensor.empty([1000], { device: d });
    expect([held, small, large].every((t) => t.numel > 0)).toBe(true);
  });

  it('takes a freed block again at once, lowest address first, so that the same steps take the same memory', () => {
    const d = device('cpu');
    const step = () => {
      const tensors = [3000, 100, 70_000, 5].map((n) => Tensor.empty([n]));
      tensors[1]!.dispose();
      tensors.push(Tensor.empty([50]));
      for (const t of [tensors[0]!, tensors[2]!, tensors[3]!, tensors[4]!]) t.dispose();
    };
    step();
    d.resetPeak();
    const before = d.account();
    for (let i = 0; i < 100; i++) step();
    expect(d.account().live).toBe(before.live);
    expect(d.account().peak - before.live).toBe(12_032 + 512 + 280_064 + 256);
  });
});
