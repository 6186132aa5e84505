import { Random } from '../../csrc/kernels/common/cases';
import { Tensor } from '../tensor/tensor';
import { siluGate, siluGateBackward } from './silu-gate';

function normals(n: number, seed: number): Float64Array {
  const random = new Random(seed);
  return Float64Array.from({ length: n }, () => random.normal());
}

describe('siluGate', () => {
  it('is up times gate far right, zero far left, and NaN for NaN', async () => {
    for (const device of ['cpu', 'ref'] as const) {
      const gate = Tensor.from([1e30, -1e30, 100, -200, 0, Number.NaN], [6], { device });
      const up = Tensor.from([2, 2, 3, 3, 5, 1], [6], { device });
      const plain = async (t: Tensor): Promise<number[]> => [...(await t.numbers())].map((y) => y + 0);
      expect(await plain(siluGate(gate, up))).toEqual([Math.fround(2e30), 0, 300, 0, 0, Number.NaN]);
      const one = Tensor.from([1, 1, 1, 1, 1, 1], [6], { device });
      const { dgate, dup } = siluGateBackward(one, { gate, up });
      // silu' is 1, 0, 1, 0, 1/2.
      expect(await plain(dgate)).toEqual([2, 0, 3, 0, 2.5, Number.NaN]);
      expect(await plain(dup)).toEqual([Math.fround(1e30), 0, 100, 0, 0, Number.NaN]);
    }
  });

  it('keeps the relative precision of its left tail', async () => {
    const at = [-80, -20, -5];
    const exact = at.map((x) => x / (1 + Math.exp(-x)));
    const y = await siluGate(Tensor.from(at, [3]), Tensor.from([1, 1, 1], [3])).numbers();
    y.forEach((value, i) => {
      expect(Math.abs(value / exact[i]! - 1)).toBeLessThan(1e-5);
    });
  });

  it('gives an element the same bits wherever it stands, and in the place of its inputs', async () => {
    const n = 20011;
    const make = (seed: number): Tensor => Tensor.from(normals(n, seed), [n], { dtype: 'bf16' });
    const [gate, up, dy] = [make(1), make(2), make(3)];
    const y = await siluGate(gate, up).read<'bf16'>();
    const grads = siluGateBackward(dy, { gate, up });
    const [dgate, dup] = [await grads.dgate.read<'bf16'>(), await grads.dup.read<'bf16'>()];
    for (const [offset, count] of [
      [3, 20000],
      [8192, 5],
      [777, 1],
    ] as const) {
      const part = (t: Tensor): Tensor => t.view([count], offset);
      expect(await siluGate(part(gate), part(up)).read()).toEqual(y.slice(offset, offset + count));
      const cut = siluGateBackward(part(dy), { gate: part(gate), up: part(up) });
      expect(await cut.dgate.read()).toEqual(dgate.slice(offset, offset + count));
      expect(await cut.dup.read()).toEqual(dup.slice(offset, offset + count));
    }
    const [onGate, onUp] = [make(1), make(2)];
    siluGateBackward(dy, { gate: onGate, up: onUp }, { dgate: onUp, dup: onGate });
    expect(await onUp.read()).toEqual(dgate);
    expect(await onGate.read()).toEqual(dup);
    siluGate(gate, up, up);
    expect(await up.read()).toEqual(y);
  });

  it('says which argument does not fit', () => {
    const a = Tensor.empty([2, 3]);
    expect(() => siluGate(a, Tensor.empty([3, 2]))).toThrow('silu_gate: expected [2, 3] for up, got [3, 2]');
    expect(() => siluGate(a, Tensor.empty([2, 3], { dtype: 'bf16' }))).toThrow('expected f32 for up, got bf16');
    expect(() => siluGate(Tensor.empty([2], { dtype: 'i32' }), a)).toThrow('f32 or bf16 or f16 for gate, got i32');
    expect(() => siluGateBackward(a, { gate: a, up: Tensor.empty([2, 3], { device: 'ref' }) })).toThrow('one on ref');
    const memory = Tensor.empty([10]);
    expect(() => siluGate(memory.view([8], 0), memory.view([8], 0), memory.view([8], 1))).toThrow(
      'y and gate that overlap',
    );
    const saved = { gate: Tensor.empty([2]), up: Tensor.empty([2]) };
    const both = Tensor.empty([2]);
    expect(() => siluGateBackward(Tensor.empty([2]), saved, { dgate: both, dup: both })).toThrow(
      'got dgate and dup that overlap',
    );
  });
});
