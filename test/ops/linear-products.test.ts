/** The library's product and our own pass the same cases; gradients add where they are told to. */
import { linearBackwardInput, linearBackwardWeight, Tensor } from '@ds/core-native';
import { Random } from '../../packages/core-native/csrc/kernels/common/cases';
import { linearCases } from '../../packages/core-native/csrc/kernels/gemm/linear.cases';
import { native } from '../../packages/core-native/src/loader';
import { expectClose, makeInputs, runCase } from './compare';

const products = native.gemm().library ? ['openblas', 'internal'] : ['internal'];

describe.each(products)('linear by %s', (product) => {
  beforeAll(() => native.set_gemm(product));
  afterAll(() => native.set_gemm('auto'));

  const cases = linearCases.cases.filter(({ bench, dtype }) => !bench && dtype === 'f32');
  it.each(cases.map((c) => [c.name, c] as const))('equals the specification: %s', async (_name, c) => {
    const values = makeInputs(c, 3);
    const exact = await runCase(linearCases, c, values, 'ref', true);
    const low = await runCase(linearCases, c, values, 'ref', false);
    const cpu = await runCase(linearCases, c, values, 'cpu', false);
    const size = { terms: linearCases.sumLength!(c) };
    for (const name of Object.keys(exact.outputs))
      expectClose(name, 'f32', cpu.outputs[name]!, low.outputs[name]!, exact.outputs[name]!, size);
    for (const name of Object.keys(exact.gradients))
      expectClose(`d${name}`, 'f32', cpu.gradients[name]!, low.gradients[name]!, exact.gradients[name]!, size);
  });

  it('adds gradients to what is there, in f32 for 16-bit operands too', async () => {
    const [R, K, N] = [19, 21, 18];
    const random = new Random(5);
    const normal = (n: number) => Float64Array.from({ length: n }, () => random.normal());
    const operands = { x: normal(R * K), dy: normal(R * N), w: normal(N * K) };
    for (const dtype of ['f32', 'bf16'] as const) {
      const of = async (device: 'cpu' | 'ref') => {
        using x = Tensor.from(operands.x, [R, K], { dtype, device });
        using dy = Tensor.from(operands.dy, [R, N], { dtype, device });
        using w = Tensor.from(operands.w, [N, K], { dtype, device });
        using dweight = Tensor.from(new Float64Array(N * K).fill(100), [N, K], { device });
        using dbias = Tensor.from(new Float64Array(N).fill(-7), [N], { device });
        using dx = Tensor.from(new Float64Array(R * K).fill(3), [R, K], { dtype, device });
        linearBackwardWeight(dy, x, { dweight, dbias, accumulate: true });
        linearBackwardInput(dy, w, { into: dx, accumulate: true });
        return [await dweight.numbers(), await dbias.numbers(), await dx.numbers()] as const;
      };
      const [cpu, ref] = [await of('cpu'), await of('ref')];
      for (const [i, name] of (['dweight', 'dbias', 'dx'] as const).entries())
        expectClose(name, i === 2 ? dtype : 'f32', cpu[i]!, ref[i]!, ref[i]!, { terms: 21 });
    }
  });

  it('gives the same bits however often two threads meet in it', async () => {
    // A library that hands one packing buffer to two threads was wrong here once in 300 calls.
    const [R, N, K] = [128, 256, 64];
    const random = new Random(6);
    const normal = (n: number) => Float64Array.from({ length: n }, () => random.normal());
    using x = Tensor.from(normal(R * K), [R, K]);
    using dy = Tensor.from(normal(R * N), [R, N]);
    using dweight = Tensor.empty([N, K]);
    let first: Float32Array | undefined;
    for (let i = 0; i < 2000; i++) {
      linearBackwardWeight(dy, x, { dweight, accumulate: false });
      const values = await dweight.read<'f32'>();
      first ??= values;
      expect(Buffer.compare(Buffer.from(values.buffer), Buffer.from(first.buffer))).toBe(0);
    }
  });
});
