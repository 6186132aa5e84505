/**
 * Decides which tokens of which texts go through the model in each step: continuous batching in steps of equal size.
 *
 * A step has a budget of tokens. Texts that are being written come first, with one token each; prompts fill what is left,
 * cut where it ends, and only a prompt's last piece asks for a next token; then guesses to verify. Throughput grows ever
 * more slowly with the tokens of a step, so that steps of equal size are best, and nobody's next token waits for the
 * whole of a long prompt. Source: Holmes et al. 2024 (DeepSpeed-FastGen), sec. 3 (Dynamic SplitFuse).
 *
 * Pages are taken as texts grow. When there is none left, the newest text gives up its pages and is read again later
 * (recomputed: its tokens are known, and the prefix cache may still have some of it). Seniority is the order of arrival
 * and is never lost; the most senior text takes part in every step and is never the one that gives way to others. So
 * each text becomes the most senior one after finitely many steps, and nobody starves: with budget for a token each, a
 * text is done after at most as many steps as it and its seniors have tokens, plus what they read again.
 *
 * It is a state machine without clock, model or randomness: `plan` says what to compute, `commit` takes what came out.
 */
import { DsError } from '@ds/core-native';
import type { StepResult } from '../decoder/step-runner';
import type { NextToken } from '../generation/decoder';
import type { PagePool } from './page-pool';
import type { PrefixCache } from './prefix-cache';
import type { Answer, Request, TokenEvent } from './request';
import { nextTokens, type StepEntry, type StepLimits, StepPlan } from './step-plan';

export interface SchedulerLimits extends StepLimits {
  /** Answers in the making at once. */
  readonly sequences: number;
  /** Requests that wait to be begun; more are refused. */
  readonly waiting: number;
}

/**
 * 512 tokens: where a product with the weights stops to be bound by reading them, on CPUs and on GPUs within a factor of
 * two. 256 answers: half of that, so that prompts go on while all are being written. 64 spare rows: guesses of some
 * answers, at 1 MB of logits a row for a vocabulary of 250,000. 512 requests: a queue of about a minute.
 */
export const defaultLimits: SchedulerLimits = { stepTokens: 512, sequences: 256, spareLogitRows: 64, waiting: 512 };

export interface SchedulerParts {
  readonly pool: PagePool;
  readonly cache: PrefixCache | undefined;
  readonly pageTokens: number;
  readonly vocabSize: number;
  readonly limits: SchedulerLimits;
}

/** What a step did to a request. */
export interface Outcome {
  readonly request: Request;
  readonly events: readonly TokenEvent[];
  /** What ends it. */
  readonly error?: unknown;
}

export class Scheduler {
  readonly #parts: SchedulerParts;
  /** Senior first, both. */
  readonly #running: Answer[] = [];
  readonly #waiting: Answer[] = [];
  /** Answers of #running, and those that these will fork into. */
  #slots = 0;
  #turns = 0;
  #preemptions = 0;
  #drafted = 0;
  #accepted = 0;

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
  }

  get running(): number {
    return this.#running.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get busy(): boolean {
    return this.#running.length + this.#waiting.length > 0;
  }

  /** How often an answer gave up its pages. */
  get preemptions(): number {
    return this.#preemptions;
  }

  /** Guesses that were verified. */
  get drafted(): number {
    return this.#drafted;
  }

  /** Guesses that were right. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Everything that is not done. */
  get requests(): Set<Request> {
    return new Set([...this.#running, ...this.#waiting].map(({ request }) => request));
  }

  /** Queues a request. @throws OVERLOADED when too many wait */
  submit(request: Request): void {
    const { waiting } = this.#parts.limits;
    if (this.#waiting.filter((answer) => !answer.request.begun).length >= waiting)
      throw new DsError({
        code: 'OVERLOADED',
        op: 'submit',
        expected: `fewer than ${waiting} requests that wait`,
        actual: String(waiting),
        hint: 'try again later',
      });
    insert(this.#waiting, request.answers[0]!);
  }

  /** Ends a request where it is; its pages are free at once, for the next step. */
  end(request: Request): void {
    for (const answer of request.answers) {
      if (answer.state === 'running') this.#retire(answer);
      else if (answer.state === 'waiting') remove(this.#waiting, answer);
      answer.state = 'ended';
    }
  }

  /** Answers whose next tokens may be guessed: those that are being written. */
  get guessable(): Answer[] {
    return this.#running.filter((answer) => answer.left === 1 && answer.unwritten > 1);
  }

  /** Decides the next step. No entries: there is nothing to do. @throws INTERNAL */
  plan(): StepEntry[] {
    const step = new StepPlan(this.#parts.limits);
    this.#planWriting(step);
    for (const answer of this.#running.filter((each) => !this.#isWritten(each))) this.#place(step, answer);
    this.#begin(step);
    this.#planDrafts(step);
    const { entries } = step;
    if (entries.length > 0 || !this.busy) return entries;
    throw new DsError({
      code: 'INTERNAL',
      op: 'plan',
      expected: 'a step with at least one token',
      actual: `none, with ${this.running} answers in the making and ${this.waiting} that wait`,
    });
  }

  /**
   * Takes what a step gave for entries of its plan. Entries of requests that have ended since are left out.
   *
   * @returns for each request its new tokens, or the error that ends it; the caller ends it
   * @throws INTERNAL where the step gave less than was asked
   */
  commit(entries: readonly StepEntry[], result: StepResult): Outcome[] {
    const asked = entries.reduce((sum, { rows }) => sum + rows.length, 0);
    const next = nextTokens(result, asked, this.#parts.vocabSize);
    let row = 0;
    return entries.flatMap((entry) => {
      const first = row;
      row += entry.rows.length;
      const { request, state } = entry.answer;
      if (state !== 'running') return [];
      try {
        return [{ request, events: this.#take(entry, (i) => next(first + i)) }];
      } catch (error) {
        return [{ request, events: [], error }];
      }
    });
  }

  /** Texts that are being written: the most senior first, then who was served longest ago. */
  #planWriting(step: StepPlan): void {
    const [senior] = this.#running;
    // A senior whose prompt is being read keeps its place in the step, too.
    const reserved = senior && !this.#isWritten(senior) ? 1 : 0;
    const writing = this.#running.filter((answer) => this.#isWritten(answer));
    if (writing.reduce((sum, { left }) => sum + left, reserved) > step.tokensLeft)
      writing.sort(
        (a, b) => Number(b === senior) - Number(a === senior) || a.lastTurn - b.lastTurn || bySeniority(a, b),
      );
    for (const answer of writing) this.#place(step, answer, step.tokensLeft - reserved);
  }

  /** Whether an answer has begun and needs a token or, behind a fork or a known prefix, less than a page of them. */
  #isWritten({ sequence, left }: Answer): boolean {
    return left === 1 || (sequence.ids.length > 0 && left <= this.#parts.pageTokens);
  }

  /** Lets a running answer take part with as many tokens as there is room for, at most `most`. */
  #place(step: StepPlan, answer: Answer, most = step.tokensLeft): void {
    if (answer.state !== 'running') return;
    const count = step.room(answer, most);
    if (count > 0 && this.#grow(step, answer, answer.computed + count)) step.add(answer, count);
  }

  /** Gets pages for so many tokens, from the newest if need be. @returns false where it was itself the newest */
  #grow(step: StepPlan, answer: Answer, tokens: number): boolean {
    const missing = this.#pagesFor(tokens) - answer.pages.length;
    while (missing > 0) {
      const pages = this.#parts.pool.take(missing);
      if (pages) {
        answer.pages.push(...pages);
        break;
      }
      const newest = this.#running.at(-1)!;
      step.remove(newest);
      this.#preempt(newest);
      if (newest === answer) return false;
    }
    return true;
  }

  #preempt(answer: Answer): void {
    this.#preemptions++;
    this.#retire(answer);
    answer.restart();
    answer.state = 'waiting';
    insert(this.#waiting, answer);
  }

  /** Begins what waits, in order: nobody passes one that waits for pages. */
  #begin(step: StepPlan): void {
    const { pool, cache, limits, pageTokens } = this.#parts;
    for (let [answer] = this.#waiting; answer && step.tokensLeft > 0; [answer] = this.#waiting) {
      if (this.#slots + slotsOf(answer) > limits.sequences) return;
      const { tokens, keys, request } = answer;
      const most = answer.scoresPrompt ? 0 : Math.floor((tokens.length - 1) / pageTokens);
      const known = cache?.find(tokens, keys, most) ?? [];
      const missing = this.#pagesFor(tokens.length) - known.length;
      const taken = missing + known.filter((page) => pool.references(page) === 0).length;
      // A page stays for each one that is being written: it will want it within a few steps.
      if (taken + this.#running.length > pool.free) return;
      pool.retain(known);
      answer.pages = [...known, ...pool.take(missing)!];
      answer.knownPages = known.length;
      answer.computed = known.length * pageTokens;
      cache?.count(tokens.length, answer.computed);
      if (!request.begun) request.cachedTokens = answer.computed;
      request.begun = true;
      this.#waiting.shift();
      this.#run(answer);
      this.#place(step, answer);
    }
  }

  /** Guesses take only what nobody else wants, tokens and pages both. */
  #planDrafts(step: StepPlan): void {
    const { pool, pageTokens } = this.#parts;
    for (const answer of this.#running) {
      if (answer.left !== 1 || answer.drafts.length === 0) continue;
      const places = (answer.pages.length + pool.free) * pageTokens - answer.tokens.length;
      const count = step.addDrafts(answer, Math.min(places, answer.unwritten - 1));
      if (count > 0) this.#grow(step, answer, answer.tokens.length + count);
    }
  }

  /** Takes one entry's rows; `next(i)` is its i-th. */
  #take({ answer, count, drafts, rows }: StepEntry, next: (row: number) => NextToken): TokenEvent[] {
    const { request } = answer;
    answer.lastTurn = ++this.#turns;
    answer.drafts = [];
    const reachesEnd = count === answer.left;
    const scored = rows.length - (reachesEnd ? 1 + drafts.length : 0);
    for (let i = 0; i < scored; i++) request.scorePrompt(answer.computed + rows[i]! + 1, next(i).logits!);
    answer.computed += count;
    this.#makeKnown(answer);
    if (!reachesEnd) return [];
    const events: TokenEvent[] = [];
    const begins = answer.tokens.length === request.promptIds.length;
    const writers = begins ? [answer, ...this.#fork(request)] : [answer];
    for (const writer of writers) {
      if (begins && request.options.echo) events.push(...writer.echo());
      events.push(writer.write(next(scored)));
    }
    events.push(...this.#verify(answer, drafts, (i) => next(scored + 1 + i)));
    for (const writer of writers) if (writer.sequence.finishReason) this.#finish(writer);
    return events;
  }

  /** Goes on as far as the guesses were right: the row behind each right one has the next token. */
  #verify(answer: Answer, drafts: readonly number[], next: (draft: number) => NextToken): TokenEvent[] {
    const events: TokenEvent[] = [];
    this.#drafted += drafts.length;
    for (const [i, draft] of drafts.entries()) {
      if (answer.sequence.finishReason || answer.tokens.at(-1) !== draft) break;
      this.#accepted++;
      answer.computed++;
      events.push(answer.write(next(i)));
    }
    this.#makeKnown(answer);
    return events;
  }

  /**
   * Makes the other answers of a request whose prompt has been read. They share its full pages and read the rest of it,
   * less than a page, into pages of their own with their first token: copying a page would cost a step of its own.
   */
  #fork(request: Request): Answer[] {
    const [first] = request.answers;
    const made: Answer[] = [];
    while (request.unforked) {
      const answer = request.addAnswer();
      const full = Math.floor(first!.computed / this.#parts.pageTokens);
      answer.pages = first!.pages.slice(0, full);
      this.#parts.pool.retain(answer.pages);
      answer.computed = full * this.#parts.pageTokens;
      answer.knownPages = full;
      answer.state = 'running';
      insert(this.#running, answer);
      made.push(answer);
    }
    return made;
  }

  /** Tells the prefix cache of the pages that have become full. */
  #makeKnown(answer: Answer): void {
    const { cache, pageTokens } = this.#parts;
    if (!cache) return;
    for (; (answer.knownPages + 1) * pageTokens <= answer.computed; answer.knownPages++)
      cache.put(answer.pages[answer.knownPages]!, answer.keys.key(answer.tokens, answer.knownPages));
  }

  #run(answer: Answer): void {
    answer.state = 'running';
    insert(this.#running, answer);
    this.#slots += slotsOf(answer);
  }

  #finish(answer: Answer): void {
    this.#retire(answer);
    answer.state = 'ended';
  }

  /** Takes an answer out of the running ones and frees its pages, the last first: it is the least likely to be found. */
  #retire(answer: Answer): void {
    remove(this.#running, answer);
    this.#slots -= slotsOf(answer);
    this.#parts.pool.release(answer.pages.toReversed());
    answer.pages = [];
  }

  #pagesFor(tokens: number): number {
    return Math.ceil(tokens / this.#parts.pageTokens);
  }
}

/** An answer that will fork has places for all. */
function slotsOf({ request }: Answer): number {
  return 1 + request.options.n - request.answers.length;
}

function bySeniority(a: Answer, b: Answer): number {
  return a.request.order - b.request.order || a.index - b.index;
}

function insert(answers: Answer[], answer: Answer): void {
  const place = answers.findLastIndex((other) => bySeniority(other, answer) < 0);
  answers.splice(place + 1, 0, answer);
}

function remove(answers: Answer[], answer: Answer): void {
  answers.splice(answers.indexOf(answer), 1);
}
