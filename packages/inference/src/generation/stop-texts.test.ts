/** Stop texts: what is shown never holds one, and nothing before it is lost, however the text is cut. */
import fc from 'fast-check';
import { StopTexts } from './stop-texts';

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 40 });
const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 }), {
  maxLength: 3,
});

describe('stop texts', () => {
  /** Character by character, as one would write it first. */
  function naive(text: string, wanted: readonly string[], shown: boolean): { text: string; stopped: boolean } {
    for (let end = 1; end <= text.length; end++) {
      const found = wanted.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length);
      if (found.length > 0) return { text: text.slice(0, shown ? end : end - Math.max(...found)), stopped: true };
    }
    return { text, stopped: false };
  }

  it('end the text at the first of them, in whatever pieces it comes', () => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 8 }), stops, fc.boolean(), (pieces, wanted, shown) => {
        const filter = new StopTexts(wanted, shown);
        const text = pieces.map((piece) => filter.push(piece)).join('') + filter.flush();
        expect({ text, stopped: filter.stopped }).toEqual(naive(pieces.join(''), wanted, shown));
      }),
      { numRuns: 1000 },
    );
  });

  it('hold back no more than what may be the start of one', () => {
    const filter = new StopTexts(['\n\n']);
    expect(filter.push('one\n')).toBe('one');
    expect(filter.push('two')).toBe('\ntwo');
    expect(filter.push('\n\nthree')).toBe('');
    expect(filter.stopped).toBe(true);
    expect(filter.push('four') + filter.flush()).toBe('');
  });
});
