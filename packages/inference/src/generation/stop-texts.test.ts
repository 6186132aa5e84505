/** Stop texts: what is shown never holds one, and nothing before it is lost, however the text is cut. */
import fc from 'fast-check';
import { StopTexts } from './stop-texts';

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '\n'), maxLength: 40 });
const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '\n'), minLength: 1, maxLength: 4 }), {
  maxLength: 3,
});

describe('stop texts', () => {
  it('end the text before the first of them', () => {
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 8 }), stops, (pieces, wanted) => {
        const filter = new StopTexts(wanted);
        let shown = '';
        let given = '';
        for (const piece of pieces) {
          if (filter.stopped) break;
          given += piece;
          shown += filter.push(piece);
        }
        shown += filter.flush();
        const places = wanted.map((stop) => given.indexOf(stop)).filter((place) => place >= 0);
        expect(filter.stopped).toBe(places.length > 0);
        expect(shown).toBe(places.length > 0 ? given.slice(0, Math.min(...places)) : given);
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
