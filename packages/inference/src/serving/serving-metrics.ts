/** What an engine counts: a snapshot of now, and sums since it began. */
import type { FinishReason } from '../generation/sequence';

export interface ServingMetrics {
  /** Answers in the making. */
  readonly running: number;
  /** Answers that wait to be begun, or begun again. */
  readonly waiting: number;
  readonly pagesUsed: number;
  readonly pages: number;
  /** 0 where the runner does not say how large a page is. */
  readonly pageBytesUsed: number;
  /** Tokens that were looked for in the prefix cache, and those that were found. */
  readonly prefixQueries: number;
  readonly prefixHits: number;
  /** How often an answer gave up its pages to be computed again. */
  readonly preemptions: number;
  readonly steps: number;
  /** Tokens that went through the model, guesses and those computed again included. */
  readonly computedTokens: number;
  /** Of requests that were accepted. */
  readonly promptTokens: number;
  /** New tokens of all answers. */
  readonly newTokens: number;
  /** Guesses that were verified, and those that were right. */
  readonly draftedTokens: number;
  readonly acceptedTokens: number;
  /** Answers by how they ended. */
  readonly finished: Readonly<Record<FinishReason, number>>;
  /** Requests that ended with an error, by its code. */
  readonly failed: Readonly<Record<string, number>>;
}
