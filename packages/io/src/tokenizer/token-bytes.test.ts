/** Bytes of single tokens: joined, they are the bytes of the text. */
import { readFileSync } from 'node:fs';
import { goldenPath } from '../../../../test/support/golden';
import { loadTokenizer } from './load-tokenizer';
import { tokenBytes } from './token-bytes';
import type { Tokenizer } from './tokenizer';

it('of a byte-level vocabulary join to every golden text, characters in pieces too', () => {
  const tokenizer = loadTokenizer(goldenPath('bloom-tiny'));
  const lines = readFileSync(goldenPath('bloom-tiny', 'tokenizer-golden.jsonl'), 'utf8').trim().split('\n');
  let inPieces = 0;
  for (const line of lines) {
    const { ids, decoded } = JSON.parse(line) as { ids: number[]; decoded: string };
    const bytes = ids.map((id) => tokenBytes(tokenizer, id));
    expect(Buffer.concat(bytes).toString()).toBe(decoded);
    if (bytes.some((each) => new TextDecoder().decode(each).includes('\ufffd'))) inPieces++;
  }
  expect(inPieces).toBeGreaterThan(10);
});

it('of tokens that stand for one byte, and of ids without a token', () => {
  const spelled: Record<number, string> = { 0: '<0xE2>', 1: 'plain' };
  const tokenizer = {
    decode: ([id]: number[]) => (id === 0 ? '\ufffd' : id === 1 ? 'plain' : ''),
    idToToken: (id: number) => spelled[id],
  } as unknown as Tokenizer;
  expect([0, 1, 2].map((id) => [...tokenBytes(tokenizer, id)])).toEqual([[0xe2], [...Buffer.from('plain')], []]);
});
