/** On the CPU a text's bits depend on itself alone: not on its batch, nor on how it is cut, nor on pages, nor on threads. */
import { type PackedFormat, setThreads, threads } from '@ds/core-native';
import { goldenModels, goldenPath } from '../../../test/support/golden';
import { denseFamilies } from '../../../test/support/golden-families';
import { ModelFolderCopy } from '../test-support/model-folders';
import { Decoder, type DecoderOptions } from './generation/decoder';
import { loadFolder } from './model/load-folder';
import type { ModelInMemory } from './model/model-in-memory';

jest.setTimeout(240_000);

const idsOf = (length: number, start: number) =>
  Array.from({ length }, (_, i) => 4 + ((31 * i * i + 17 * i + start) % 300));
/** Around pages, and over more than a piece of a prompt. */
const texts = [40, 7, 1, 24, 16, 33].map((length, i) => idsOf(length, 101 * i));
const newIds = [9, 17, 5, 300, 44, 8, 71, 12, 100];

type Way = Required<Pick<DecoderOptions, 'pieceTokens' | 'pageTokens'>>;
const plainWay: Way = { pieceTokens: 512, pageTokens: 16 };

async function withModel<T>(
  folder: string,
  weights: PackedFormat,
  use: (memory: ModelInMemory) => Promise<T>,
): Promise<T> {
  const { model } = await loadFolder(folder, { weights });
  try {
    return await use({ model, users: new Set() });
  } finally {
    model[Symbol.dispose]();
  }
}

/** The bits of all logits that a decoder gives: behind each prompt, and behind each new token. */
async function bitsOf(memory: ModelInMemory, prompts: readonly (readonly number[])[], way: Way): Promise<string[]> {
  const wanted = prompts.map((promptIds) => ({ promptIds, maxNewTokens: newIds.length + 1 }));
  using decoder = new Decoder(memory, { texts: wanted, want: 'logits', ...way });
  const bits = prompts.map(() => '');
  const add = (next: Awaited<ReturnType<Decoder['next']>>) => {
    next.forEach(({ logits }, i) => {
      bits[i] += Buffer.from(Float32Array.from(logits!).buffer).toString('base64');
    });
  };
  add(await decoder.readPrompts(() => {}));
  for (const id of newIds) add(await decoder.next(prompts.map((_, text) => ({ text, id }))));
  return bits;
}

const folders = [
  ...goldenModels.map((model) => [model, goldenPath(model)] as const),
  ...denseFamilies.map((family) => [family, goldenPath('families', family)] as const),
];

describe.each(folders)('%s', (_, folder) => {
  it.each(['f32', 'bf16', 'f16', 'q8', 'q4'] as const)('with %s weights', async (weights) => {
    await withModel(folder, weights, async (memory) => {
      const alone: string[] = [];
      for (const text of texts) alone.push(...(await bitsOf(memory, [text], plainWay)));
      expect(new Set(alone).size).toBe(texts.length);
      for (const way of [
        { pieceTokens: 1, pageTokens: 16 },
        { pieceTokens: 7, pageTokens: 8 },
        { pieceTokens: 13, pageTokens: 32 },
        { pieceTokens: 512, pageTokens: 8 },
        { pieceTokens: 512, pageTokens: 32 },
      ] as const)
        expect((await bitsOf(memory, texts, way)).map((bits, i) => bits === alone[i])).toEqual(texts.map(() => true));
    });
  });
});

describe('a text of 700 tokens, among others and with one thread', () => {
  it.each(['bloom-tiny', 'families/llama', 'families/mistral'] as const)('of %s', async (model) => {
    using copy = new ModelFolderCopy(model);
    if (model !== 'bloom-tiny') copy.json('config.json', { max_position_embeddings: 1000 });
    const long = idsOf(700, 5);
    await withModel(copy.folder, 'f32', async (memory) => {
      const [alone] = await bitsOf(memory, [long], plainWay);
      const before = threads();
      try {
        setThreads(1);
        const [first] = await bitsOf(memory, [long], { pieceTokens: 300, pageTokens: 8 });
        expect(first === alone).toBe(true);
      } finally {
        setThreads(before);
      }
      const both = await bitsOf(memory, [texts[0]!, long, texts[1]!], { pieceTokens: 100, pageTokens: 32 });
      expect(both[1] === alone).toBe(true);
    });
  });
});
