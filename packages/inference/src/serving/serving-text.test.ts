/** Text as it streams: characters are whole, stop texts are never seen, and the pieces joined are the text. */
import type { Tokenizer } from '@ds/io';
import { dice, FakeRunner } from '../../test-support/fake-runner';
import type { RequestOptions } from './request-options';
import { ServingEngine } from './serving-engine';

/** A vocabulary of pieces of bytes; a text is any cut of its bytes into pieces. */
class PieceTokenizer implements Pick<Tokenizer, 'encode' | 'streamDecoder'> {
  readonly pieces: Uint8Array[] = [];
  readonly #ids = new Map<string, number>();

  idOf(bytes: Uint8Array): number {
    const key = bytes.join();
    const known = this.#ids.get(key) ?? this.pieces.push(bytes) - 1;
    this.#ids.set(key, known);
    return known;
  }

  encode(text: string): number[] {
    return [...new TextEncoder().encode(text)].map((byte) => this.idOf(Uint8Array.of(byte)));
  }

  streamDecoder() {
    const decoder = new TextDecoder();
    return {
      push: (id: number) => decoder.decode(this.pieces[id], { stream: true }),
      flush: () => decoder.decode(),
    };
  }
}

const alphabet = ['a', 'b', ' ', 'é', '你', '好', '世界', '😀', '👨‍👩‍👧', '\n', '🇩🇪'];
const roll = dice(8);
const randomText = (least: number, most: number) =>
  Array.from({ length: least + roll(most - least + 1) }, () => alphabet[roll(alphabet.length)]).join('');

/** Where the text ends, character by character: the first stop text to be complete, of several the longest. */
function naive(text: string, stops: readonly string[]): string | undefined {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
    if (found.length > 0) return text.slice(0, end - Math.max(...found));
  }
  return undefined;
}

describe('1,000 texts of emoji and Chinese in random pieces of bytes', () => {
  it('stream whole characters, and end where their stop texts say', async () => {
    const tokenizer = new PieceTokenizer();
    const jobs = Array.from({ length: 1000 }, () => {
      const text = randomText(1, 24);
      const bytes = new TextEncoder().encode(text);
      const script: number[] = [];
      for (let at = 0; at < bytes.length; ) {
        const size = 1 + roll(7);
        script.push(tokenizer.idOf(bytes.slice(at, at + size)));
        at += size;
      }
      return { text, script, stops: Array.from({ length: roll(4) }, () => randomText(1, 3)) };
    });
    // Prompt [j low, j high]: the text then follows script j.
    const V = Math.max(tokenizer.pieces.length, 64);
    const next = (tokens: readonly number[]) => jobs[tokens[0]! * 64 + tokens[1]!]!.script[tokens.length - 2]!;
    await using engine = new ServingEngine({
      runner: new FakeRunner({ vocabSize: V, next }),
      tokenizer,
      limits: { waiting: 2000, stepTokens: 64 },
    });
    let stopped = 0;
    await Promise.all(
      jobs.map(async ({ text, script, stops }, j) => {
        const options: RequestOptions = { maxNewTokens: script.length, ...(stops.length > 0 ? { stop: stops } : {}) };
        const prompt = [Math.floor(j / 64), j % 64];
        const [stream, whole] = [engine.submit(prompt, options), engine.submit(prompt, options)];
        let streamed = '';
        for await (const event of stream) {
          expect(event.text).not.toContain('\ufffd');
          expect(event.text).not.toMatch(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/);
          streamed += event.text;
          for (const stop of stops) expect(streamed).not.toContain(stop);
        }
        const wanted = naive(text, stops);
        const [answer] = (await whole.final()).answers;
        expect(streamed).toBe(wanted ?? text);
        expect(answer!.text).toBe(streamed);
        expect(answer!.finishReason).toBe(wanted === undefined ? 'length' : 'stop');
        if (wanted !== undefined) stopped++;
        expect(answer!.ids).toEqual(script.slice(0, answer!.ids.length));
      }),
    );
    expect(stopped).toBeGreaterThan(200);
    expect(engine.metrics.pagesUsed).toBe(0);
  });
});

describe('ends of a text', () => {
  const letters = 'abcdefghij';
  const tokenizer: Pick<Tokenizer, 'encode' | 'streamDecoder'> = {
    encode: (text) => [...text].map((letter) => letters.indexOf(letter)),
    streamDecoder: () => ({ push: (id) => letters[id]!, flush: () => '' }),
  };
  /** a, b, c, ... and again from a. */
  const write = async (prompt: string, options: RequestOptions, endTokenIds: number[] = []) => {
    const next = (tokens: readonly number[]) => (tokens.at(-1)! + 1) % 10;
    const runner = new FakeRunner({ vocabSize: 10, next });
    await using engine = new ServingEngine({ runner, tokenizer, endTokenIds });
    const [answer] = (await engine.submit(prompt, { maxNewTokens: 25, ...options }).final()).answers;
    return { text: answer!.text, ids: answer!.ids.length, finishReason: answer!.finishReason };
  };

  it.each<[RequestOptions, number[], object]>([
    [{ stop: 'fg' }, [], { text: 'bcde', ids: 6, finishReason: 'stop' }],
    [{ stop: 'fg', includeStop: true }, [], { text: 'bcdefg', ids: 6, finishReason: 'stop' }],
    [{ stop: ['zz', 'hij', 'i'] }, [], { text: 'bcdefgh', ids: 8, finishReason: 'stop' }],
    [{ stopTokenIds: [3] }, [], { text: 'bc', ids: 3, finishReason: 'stop' }],
    [{ stopTokenIds: [3], includeStop: true }, [], { text: 'bcd', ids: 3, finishReason: 'stop' }],
    [{}, [4], { text: 'bcde', ids: 4, finishReason: 'end' }],
    [{ ignoreEos: true, maxNewTokens: 12 }, [4], { text: 'bcdefghijabc', ids: 12, finishReason: 'length' }],
    [{ ignoreEos: true, stopTokenIds: [5] }, [4], { text: 'bcde', ids: 5, finishReason: 'stop' }],
    [{ stop: 'de', minNewTokens: 5 }, [], { text: 'bcdefghijabc', ids: 14, finishReason: 'stop' }],
    [{ echo: true, maxNewTokens: 2 }, [], { text: 'abc', ids: 2, finishReason: 'length' }],
    [{ echo: true, stop: 'a', maxNewTokens: 2 }, [], { text: 'abc', ids: 2, finishReason: 'length' }],
  ])('%j', async (options, endTokenIds, wanted) => {
    expect(await write('a', options, endTokenIds)).toEqual(wanted);
  });

  it('a least number of tokens keeps ending tokens away until then', async () => {
    const { ids, finishReason } = await write('a', { minNewTokens: 6 }, [4]);
    expect(finishReason === 'end' ? ids : 25).toBeGreaterThan(6);
    const biased = await write('a', { logitBias: { 1: -100 }, maxNewTokens: 1 });
    expect(biased.text).not.toBe('b');
  });
});
