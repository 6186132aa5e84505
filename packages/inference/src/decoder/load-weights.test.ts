/** Weights come in pieces of any size, from any float dtype, out of every way to store them. */
import { device, liveTensors, type PackedFormat, PackedWeight, Tensor, unpackNumbers } from '@ds/core-native';
import { openModelFolder } from '@ds/io';
import { matchTensorNames, type StoredWeight, tensorsOf } from '@ds/nn';
import { type DenseFamily, describeFamily } from '../../../../test/support/golden-families';
import { rowsOf } from '../../../../test/support/plain-decoder';
import { ModelFolderCopy } from '../../test-support/model-folders';
import { WeightStore } from './load-weights';
import { type FileFloat, fileDtypes } from './stored-pieces';

const formats: readonly PackedFormat[] = ['f32', 'bf16', 'f16', 'q8', 'q4'];
const cpu = device('cpu');

/** A tensor of a file as numbers. */
function numbersOf(dtype: FileFloat, bytes: Uint8Array<ArrayBuffer>): Float64Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (dtype === 'f32') return unpackNumbers(dtype, new Float32Array(buffer, byteOffset, byteLength / 4));
  return unpackNumbers(dtype, new Uint16Array(buffer, byteOffset, byteLength / 2));
}

const stores: [DenseFamily, string, (family: DenseFamily) => StoredWeight, boolean][] = [
  ['llama', 'one tensor', (f) => describeFamily(f).embedding.table, false],
  ['qwen2', 'three one below the other', (f) => describeFamily(f).layers[1]!.attention.queryKeyValue.weight, false],
  ['llama', 'gates and what they multiply', (f) => describeFamily(f).layers[0]!.mlp.up.weight, true],
  ['gpt2', 'the transpose', (f) => describeFamily(f).layers[1]!.mlp.up.weight, false],
  ['gpt_neox', 'head by head', (f) => describeFamily(f).layers[1]!.attention.queryKeyValue.weight, false],
];

describe.each(stores)('a matrix of %s that is stored as %s', (family, _, pick, gated) => {
  it.each(fileDtypes)('is packed from a %s file as if it came whole, whatever the pieces', async (from) => {
    using folder = new ModelFolderCopy(`families/${family}`);
    if (from !== 'f32') folder.rounded(from);
    using opened = openModelFolder(folder.folder);
    const description = describeFamily(family);
    const wanted = { ...description, names: [...tensorsOf(description).keys()] };
    const names = matchTensorNames(wanted, opened.weights.names, 'weights');
    const stored = pick(family);
    const [rows, columns] = stored.shape as [number, number];
    const numbers = rowsOf(stored, (tensor) => numbersOf(from, opened.weights.tensor(names.get(tensor)!).bytes));
    for (const format of formats) {
      using whole = PackedWeight.empty({ format, rows, columns, gated });
      using source = Tensor.from(numbers.flat(), [rows, columns]);
      whole.write(source);
      const bytes = Buffer.from(await whole.bytes.read<'u8'>());
      for (const pieceBytes of [1, 1000, 5000, 4 << 20]) {
        using store = new WeightStore(cpu, format);
        const weight = store.matrix(stored, gated);
        const done: number[] = [];
        const used = new Map([...names].filter(([bare]) => stored.parts.some(({ tensor }) => tensor === bare)));
        await store.fill(opened.weights, used, { pieceBytes, onProgress: ({ bytesDone }) => done.push(bytesDone) });
        expect(Buffer.from(await weight.bytes.read<'u8'>()).equals(bytes)).toBe(true);
        expect(done.at(-1)).toBe(rows * columns * (from === 'f32' ? 4 : 2));
      }
    }
  });
});

it('biases and norms are f32, from any file', async () => {
  for (const from of fileDtypes) {
    using folder = new ModelFolderCopy('families/gpt_neox');
    if (from !== 'f32') folder.rounded(from);
    using opened = openModelFolder(folder.folder);
    const description = describeFamily('gpt_neox');
    const stored = description.layers[1]!.attention.queryKeyValue.bias!;
    const name = stored.parts[0]!.tensor;
    using store = new WeightStore(cpu, 'q4');
    const bias = store.tensor(stored);
    const names = new Map([[name, `gpt_neox.${name}`]]);
    await store.fill(opened.weights, names, { pieceBytes: 12 });
    const wanted = rowsOf(stored, () => numbersOf(from, opened.weights.tensor(`gpt_neox.${name}`).bytes));
    expect([...(await bias.read<'f32'>())]).toEqual(wanted.flat());
    expect(bias.shape).toEqual([144]);
  }
});

it('memory goes with the store', () => {
  const before = liveTensors();
  const store = new WeightStore(cpu, 'f32');
  const { layers } = describeFamily('gpt2');
  store.linear(layers[0]!.mlp.up);
  store.norm(layers[0]!.mlpNorm);
  expect(liveTensors()).toBe(before + 4);
  store[Symbol.dispose]();
  store[Symbol.dispose]();
  expect(liveTensors()).toBe(before);
});
