/**
 * Finds pages whose keys and values another text has computed already: texts that begin alike share them.
 *
 * A page's key is a hash over the key of the page before it and its own tokens, so equal keys mean equal texts from the
 * first token on; SHA-256, because a collision would show one user's text to another, and users choose the tokens.
 * Only full pages are found. Source: vLLM, "Automatic Prefix Caching" (design document), without the code.
 */
import { createHash } from 'node:crypto';
import type { PagePool } from './page-pool';

/** The keys of one text's pages. */
export class PageKeys {
  readonly #pageTokens: number;
  readonly #keys: string[] = [];
  readonly #root: string;

  /** @param salt texts of different salts share nothing */
  constructor(pageTokens: number, salt: string) {
    this.#pageTokens = pageTokens;
    this.#root = createHash('sha256').update(salt).digest('base64');
  }

  /** Key of a page, all of whose tokens are known and final. */
  key(tokens: readonly number[], page: number): string {
    for (let i = this.#keys.length; i <= page; i++) {
      const own = Int32Array.from(tokens.slice(i * this.#pageTokens, (i + 1) * this.#pageTokens));
      const hash = createHash('sha256').update(this.#keys[i - 1] ?? this.#root);
      this.#keys.push(hash.update(new Uint8Array(own.buffer)).digest('base64'));
    }
    return this.#keys[page]!;
  }
}

export class PrefixCache {
  readonly #pool: PagePool;
  readonly #pageByKey = new Map<string, number>();
  readonly #keyByPage = new Map<number, string>();
  #queries = 0;
  #hits = 0;

  constructor(pool: PagePool) {
    this.#pool = pool;
    pool.onEvict((page) => {
      this.#pageByKey.delete(this.#keyByPage.get(page)!);
      this.#keyByPage.delete(page);
    });
  }

  /** Tokens that were looked for. */
  get queries(): number {
    return this.#queries;
  }

  /** Tokens that were found. */
  get hits(): number {
    return this.#hits;
  }

  /** Pages with known content. */
  get size(): number {
    return this.#pageByKey.size;
  }

  /** Pages of the longest known beginning, at most `most`; nobody holds them yet. */
  find(tokens: readonly number[], keys: PageKeys, most: number): number[] {
    const pages: number[] = [];
    while (pages.length < most) {
      const page = this.#pageByKey.get(keys.key(tokens, pages.length));
      if (page === undefined) break;
      pages.push(page);
    }
    return pages;
  }

  /** Counts what a text that begins was looking for and found. */
  count(queries: number, hits: number): void {
    this.#queries += queries;
    this.#hits += hits;
  }

  /** Makes a computed page known. Where another page has that content, that one stays the known one. */
  put(page: number, key: string): void {
    if (this.#pageByKey.has(key)) return;
    this.#pool.keep(page);
    this.#pageByKey.set(key, page);
    this.#keyByPage.set(page, key);
  }
}
