/** Pages of keys and values by number: who holds them, and which of the free ones is taken next. */
import { DsError } from '@ds/core-native';

export interface PagePoolOptions {
  readonly pages: number;
  /** Bytes of a page, for the account; default 0. */
  readonly pageBytes?: number;
}

/**
 * A fixed number of pages with reference counts. Free ones are a list: those that hold nothing of use come first, then
 * those that a prefix cache keeps, the one freed longest ago first.
 *
 * Every call checks all that it was given before it changes anything: a page freed twice would belong to two texts, and
 * both would be wrong in silence.
 */
export class PagePool {
  readonly pages: number;
  readonly pageBytes: number;
  readonly #references: Int32Array;
  /** 1 where a prefix cache knows the content. */
  readonly #kept: Uint8Array;
  /** A ring through the free pages; its head and tail meet in place `pages`, which is no page. */
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  #free = 0;
  #onEvict: ((page: number) => void) | undefined;

  /** @throws CONFIG for no pages */
  constructor({ pages, pageBytes = 0 }: PagePoolOptions) {
    if (!Number.isSafeInteger(pages) || pages < 1)
      throw new DsError({ code: 'CONFIG', op: 'PagePool', expected: 'at least one page', actual: String(pages) });
    this.pages = pages;
    this.pageBytes = pageBytes;
    this.#references = new Int32Array(pages);
    this.#kept = new Uint8Array(pages);
    this.#next = new Int32Array(pages + 1).fill(-1);
    this.#previous = new Int32Array(pages + 1).fill(-1);
    this.#next[pages] = pages;
    this.#previous[pages] = pages;
    for (let page = 0; page < pages; page++) this.#link(page, pages);
  }

  /** Pages that nobody holds, kept ones among them. */
  get free(): number {
    return this.#free;
  }

  get used(): number {
    return this.pages - this.#free;
  }

  get usedBytes(): number {
    return this.used * this.pageBytes;
  }

  /** How many hold a page. */
  references(page: number): number {
    this.#check(page);
    return this.#references[page]!;
  }

  /** Calls `listener` with each kept page whose content is about to be lost. */
  onEvict(listener: (page: number) => void): void {
    this.#onEvict = listener;
  }

  /** Takes free pages; undefined, and nothing taken, when there are fewer. */
  take(count: number): number[] | undefined {
    if (count > this.#free) return undefined;
    return Array.from({ length: count }, () => {
      const page = this.#next[this.pages]!;
      this.#unlink(page);
      if (this.#kept[page]) {
        this.#kept[page] = 0;
        this.#onEvict?.(page);
      }
      this.#references[page] = 1;
      return page;
    });
  }

  /** Holds pages once more: those of another text, or free ones that are kept. @throws INTERNAL */
  retain(pages: readonly number[]): void {
    for (const page of pages)
      if (this.references(page) === 0 && !this.#kept[page])
        throw broken('a page that is held or kept', `page ${page}, which is free`);
    for (const page of pages) if (this.#references[page]!++ === 0) this.#unlink(page);
  }

  /** Lets go of pages. Of those that become free, the first is taken again first. @throws INTERNAL for one not held */
  release(pages: readonly number[]): void {
    const times = new Map<number, number>();
    for (const page of pages) times.set(page, (times.get(page) ?? 0) + 1);
    for (const [page, count] of times)
      if (this.references(page) < count) throw broken('a page that is held', `page ${page}, which is free`);
    const empty: number[] = [];
    for (const page of pages) {
      if (--this.#references[page]! > 0) continue;
      if (this.#kept[page]) this.#link(page, this.pages);
      else empty.push(page);
    }
    // Without content of use: in front of all others, in the given order.
    const front = this.#next[this.pages]!;
    for (const page of empty) this.#link(page, front);
  }

  /** Keeps the content of a held page when it becomes free, for as long as there are others. @throws INTERNAL */
  keep(page: number): void {
    if (this.references(page) === 0) throw broken('a page that is held', `page ${page}, which is free`);
    this.#kept[page] = 1;
  }

  /** Compares the free list with the reference counts, both ways. @throws INTERNAL */
  verify(): void {
    const listed = new Set<number>();
    for (let page = this.#next[this.pages]!; page !== this.pages; page = this.#next[page]!) {
      if (listed.has(page)) throw broken('a list that ends', `page ${page} in it twice`);
      if (this.#previous[this.#next[page]!] !== page) throw broken('links both ways', `page ${page} without`);
      listed.add(page);
    }
    for (let page = 0; page < this.pages; page++)
      if (listed.has(page) !== (this.#references[page] === 0))
        throw broken('free pages in the list', `page ${page} with ${this.#references[page]} references`);
    if (listed.size !== this.#free) throw broken(`${listed.size} free pages`, String(this.#free));
  }

  #check(page: number): void {
    if (Number.isInteger(page) && page >= 0 && page < this.pages) return;
    throw broken(`a page from 0 to ${this.pages - 1}`, String(page));
  }

  /** Puts a page before another in the list. */
  #link(page: number, before: number): void {
    const previous = this.#previous[before]!;
    this.#next[previous] = page;
    this.#previous[page] = previous;
    this.#next[page] = before;
    this.#previous[before] = page;
    this.#free++;
  }

  #unlink(page: number): void {
    this.#next[this.#previous[page]!] = this.#next[page]!;
    this.#previous[this.#next[page]!] = this.#previous[page]!;
    this.#free--;
  }
}

function broken(expected: string, actual: string): DsError {
  return new DsError({ code: 'INTERNAL', op: 'PagePool', expected, actual });
}
