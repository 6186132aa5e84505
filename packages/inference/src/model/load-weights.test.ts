/** Weights come in pieces of any size, from any float dtype, to any other. */
import { unpackNumbers } from '@ds/core-native';
import { openModelFolder } from '@ds/io';
import { familyOf, holdFull } from '@ds/nn';
import { ModelFolderCopy, roundTo } from '../../test-support/model-folders';
import { loadWeights } from './load-weights';

const fileDtypes = ['f32', 'bf16', 'f16'] as const;
const cases = fileDtypes.flatMap((from) => fileDtypes.map((to) => [from, to] as const));

it.each(cases)('a %s file fills %s weights, 1,000 bytes at a time', async (from, to) => {
  using folder = new ModelFolderCopy('bloom-tiny-h6');
  if (from !== 'f32') folder.rounded(from);
  using opened = openModelFolder(folder.folder);
  const family = familyOf(opened.config);
  using model = family.create(opened.config, 'config.json');
  using storage = holdFull(model, { dtype: to });
  const names = family.matchNames([...storage.parameters.keys()], opened.weights.names, 'weights');
  const done: number[] = [];
  await loadWeights(storage, names, opened.weights, {
    pieceBytes: 1000,
    onProgress: ({ bytesDone }) => done.push(bytesDone),
  });
  expect(done.length).toBeGreaterThan(81312 / 500);
  for (const [name, { value }] of storage.parameters) {
    const { bytes } = opened.weights.tensor(names.get(name)!);
    const packed = from === 'f32' ? new Float32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
    const wanted = roundTo(to, unpackNumbers(from, packed));
    const got = await value.numbers();
    expect(Buffer.from(got.buffer).equals(Buffer.from(wanted.buffer))).toBe(true);
  }
});
