/** Guesses by a smaller model of the same vocabulary: it writes on greedily, with pages of its own. */
import type { StepRunner } from '../decoder/step-runner';
import type { Drafter, DraftRequest } from './drafter';
import { PagePool } from './page-pool';
import { batchOf, nextTokens } from './step-plan';

export interface ModelDrafterOptions {
  /** Tokens of a step of the small model; default 512, as of the large one. */
  stepTokens?: number;
}

/** What the small model knows of a text. */
interface Draft {
  /** Tokens in its pages. */
  tokens: number[];
  /** As many of them are the text's for certain; what follows was guessed. */
  certain: number;
  pages: number[];
}

/** A text in the making of guesses. */
interface Work {
  readonly draft: Draft;
  readonly most: number;
  /** Tokens to send through the model. */
  pending: number[];
  readonly guesses: number[];
}

/**
 * Reads each text as it grows, and guesses what it would write itself. Where its pages do not suffice, the texts that it
 * was not asked about for longest are forgotten; if that is not enough, a text goes without guesses.
 */
export class ModelDrafter implements Drafter {
  readonly #runner: StepRunner;
  readonly #stepTokens: number;
  readonly #pool: PagePool;
  /** Those asked about longest ago first. */
  readonly #drafts = new Map<string, Draft>();

  /** @param runner a model whose ids mean what the large one's mean; the drafter disposes of it */
  constructor(runner: StepRunner, { stepTokens = 512 }: ModelDrafterOptions = {}) {
    this.#runner = runner;
    this.#stepTokens = stepTokens;
    this.#pool = new PagePool({ pages: runner.pages, pageBytes: runner.pageBytes ?? 0 });
  }

  get pagesUsed(): number {
    return this.#pool.used;
  }

  async propose(requests: readonly DraftRequest[]): Promise<number[][]> {
    const works = requests.map((request) => this.#begin(request, requests));
    const going = () => works.filter((work): work is Work => work !== undefined && work.guesses.length < work.most);
    for (let left = going(); left.length > 0; left = going()) await this.#step(left);
    return works.map((work) => work?.guesses ?? []);
  }

  forget(id: string): void {
    const draft = this.#drafts.get(id);
    if (!draft) return;
    this.#drafts.delete(id);
    this.#pool.release(draft.pages);
  }

  [Symbol.dispose](): void {
    for (const id of [...this.#drafts.keys()]) this.forget(id);
    this.#runner[Symbol.dispose]();
  }

  /** Finds what is known of a text and gets the pages it needs; undefined where there are none. */
  #begin({ id, tokens, most }: DraftRequest, requests: readonly DraftRequest[]): Work | undefined {
    const draft = this.#drafts.get(id) ?? { tokens: [], certain: 0, pages: [] };
    this.#drafts.delete(id);
    this.#drafts.set(id, draft);
    // The last token goes through the model in any case: its row has the first guess.
    const end = Math.min(draft.tokens.length, tokens.length - 1);
    let common = Math.min(draft.certain, end);
    while (common < end && draft.tokens[common] === tokens[common]) common++;
    draft.tokens.length = common;
    draft.certain = common;
    const missing = Math.ceil((tokens.length + most - 1) / this.#runner.pageTokens) - draft.pages.length;
    if (missing > 0 && !this.#grow(draft, missing, requests)) {
      this.forget(id);
      return undefined;
    }
    return { draft, most, pending: tokens.slice(common), guesses: [] };
  }

  #grow(draft: Draft, missing: number, requests: readonly DraftRequest[]): boolean {
    const wanted = new Set(requests.map(({ id }) => id));
    for (const id of this.#drafts.keys()) {
      if (this.#pool.free >= missing) break;
      if (!wanted.has(id)) this.forget(id);
    }
    const pages = this.#pool.take(missing);
    if (pages) draft.pages.push(...pages);
    return pages !== undefined;
  }

  /** One step of the small model: each text takes part until the step is full. */
  async #step(works: readonly Work[]): Promise<void> {
    const { pageTokens, vocabSize } = this.#runner;
    let room = this.#stepTokens;
    const parts = works.flatMap((work) => {
      const ids = work.pending.slice(0, room);
      room -= ids.length;
      const rows = ids.length === work.pending.length ? [ids.length - 1] : [];
      return ids.length > 0 ? [{ work, ids, past: work.draft.tokens.length, pages: work.draft.pages, rows }] : [];
    });
    const asking = parts.filter(({ rows }) => rows.length > 0);
    const next = nextTokens(await this.#runner.step(batchOf(parts, 'argmax', pageTokens)), asking.length, vocabSize);
    for (const { work, ids, rows } of parts) {
      // Of the guesses, only what the text itself says next time becomes certain.
      if (work.guesses.length === 0) work.draft.certain += ids.length;
      work.draft.tokens.push(...ids);
      work.pending = work.pending.slice(ids.length);
      if (rows.length === 0) continue;
      const guess = next(asking.findIndex((part) => part.work === work)).id!;
      work.guesses.push(guess);
      work.pending = [guess];
    }
  }
}
