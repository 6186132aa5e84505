/** Pages: who holds them, which comes next, and that nothing wrong changes anything. */
import fc from 'fast-check';
import { PagePool } from './page-pool';
import { PageKeys, PrefixCache } from './prefix-cache';

describe('a pool of pages', () => {
  it('gives each page once, counts bytes, and refuses more than there are', () => {
    const pool = new PagePool({ pages: 4, pageBytes: 100 });
    expect(pool.take(3)).toEqual([0, 1, 2]);
    expect([pool.used, pool.free, pool.usedBytes]).toEqual([3, 1, 300]);
    expect(pool.take(2)).toBeUndefined();
    expect(pool.take(1)).toEqual([3]);
    expect(pool.take(0)).toEqual([]);
    pool.release([3, 1]);
    expect(pool.take(2)).toEqual([3, 1]);
    pool.verify();
  });

  it('refuses a page freed twice, and leaves everything as it was', () => {
    const pool = new PagePool({ pages: 3 });
    const [a, b] = pool.take(2)!;
    pool.retain([a!]);
    for (const wrong of [[b!, b!], [a!, b!, a!, a!], [b!, 2], [b!, 3], [-1], [0.5]])
      expect(() => pool.release(wrong)).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
    expect(() => pool.retain([2])).toThrow(/held or kept, got page 2/);
    expect(() => pool.keep(2)).toThrow(/page 2, which is free/);
    expect([pool.references(a!), pool.references(b!), pool.free]).toEqual([2, 1, 1]);
    pool.release([a!, b!, a!]);
    expect(pool.free).toBe(3);
    pool.verify();
    expect(() => new PagePool({ pages: 0 })).toThrow(/at least one page/);
  });

  it('gives pages without content first, then kept ones, the longest free first', () => {
    const pool = new PagePool({ pages: 5 });
    const evicted: number[] = [];
    pool.onEvict((page) => evicted.push(page));
    pool.take(5);
    pool.keep(1);
    pool.keep(3);
    pool.release([1, 2]);
    pool.release([3]);
    pool.release([4]);
    expect(pool.take(2)).toEqual([4, 2]);
    expect(evicted).toEqual([]);
    pool.retain([1]); // found again
    pool.release([1]);
    expect(pool.take(2)).toEqual([3, 1]);
    expect(evicted).toEqual([3, 1]);
  });

  it('agrees with a plain model of itself', () => {
    const action = fc.tuple(fc.constantFrom('take', 'retain', 'release', 'keep'), fc.nat(9), fc.nat(3));
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), (actions) => {
        const pool = new PagePool({ pages: 8 });
        const held = new Map<number, number>();
        for (const [what, page, count] of actions) {
          const references = held.get(page) ?? 0;
          if (what === 'take') {
            const wanted = held.size + count <= 8;
            const pages = pool.take(count);
            expect(pages !== undefined).toBe(wanted);
            for (const taken of pages ?? []) {
              expect(held.has(taken)).toBe(false);
              held.set(taken, 1);
            }
          } else if (references === 0 && what !== 'retain')
            expect(() => pool[what as 'keep'](what === 'keep' ? page : ([page] as never))).toThrow();
          else if (what === 'keep') pool.keep(page);
          else if (what === 'retain' && references > 0) {
            pool.retain([page]);
            held.set(page, references + 1);
          } else if (what === 'release') {
            pool.release([page]);
            if (references === 1) held.delete(page);
            else held.set(page, references - 1);
          }
          pool.verify();
          expect(pool.used).toBe(held.size);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('a prefix cache', () => {
  const known = (tokens: readonly number[], salt = '') => {
    const pool = new PagePool({ pages: 6 });
    const cache = new PrefixCache(pool);
    const pages = pool.take(tokens.length / 2)!;
    const keys = new PageKeys(2, salt);
    for (const [i, page] of pages.entries()) cache.put(page, keys.key(tokens, i));
    return { pool, cache, pages };
  };
  const find = (cache: PrefixCache, tokens: readonly number[], salt = '') =>
    cache.find(tokens, new PageKeys(2, salt), Math.floor(tokens.length / 2));

  it('finds the longest beginning in full pages, of the same salt', () => {
    const { cache, pages } = known([1, 2, 3, 4, 5, 6]);
    expect(find(cache, [1, 2, 3, 4, 5, 6, 7])).toEqual(pages);
    expect(find(cache, [1, 2, 3, 4, 5])).toEqual(pages.slice(0, 2));
    expect(find(cache, [1, 2, 9, 9, 5, 6])).toEqual(pages.slice(0, 1));
    expect(find(cache, [3, 4, 5, 6])).toEqual([]);
    expect(find(cache, [1, 2], 'another')).toEqual([]);
    expect(cache.find([1, 2, 3, 4], new PageKeys(2, ''), 1)).toEqual(pages.slice(0, 1));
    cache.count(7, 6);
    expect([cache.queries, cache.hits]).toEqual([7, 6]);
  });

  it('loses what was let go longest ago first, the end of a text before its beginning', () => {
    const { pool, cache, pages } = known([1, 2, 3, 4, 5, 6]);
    pool.release(pages.toReversed());
    pool.take(4);
    expect(find(cache, [1, 2, 3, 4, 5, 6])).toEqual(pages.slice(0, 2));
    expect(cache.size).toBe(2);
    pool.take(2);
    expect(cache.size).toBe(0);
  });

  it('keeps the first of two pages with the same content', () => {
    const { pool, cache, pages } = known([1, 2]);
    const [second] = pool.take(1)!;
    cache.put(second!, new PageKeys(2, '').key([1, 2], 0));
    expect(find(cache, [1, 2])).toEqual(pages);
    pool.release([second!]);
    pool.take(1);
    expect(find(cache, [1, 2])).toEqual(pages);
  });
});
