/**
 * Learns the merges of a byte-level BPE: again and again joins the most frequent pair of neighbours.
 *
 * Follows the Rust trainer of Hugging Face tokenizers to the letter, so that vocabularies agree: equal counts go to the
 * pair of lower ids; the count of a pair is not reduced by its own merge; a merge that spells a special token takes its id.
 * Counts are kept up to date by the words a merge touches (an index of words per pair), never by passes over the corpus.
 * Source: Sennrich et al. 2016, section 3.2.
 */
import { BYTE_CHARS } from '../byte-level';
import { PairTable } from '../pair-table';
import { type MergeCandidate, MergeQueue } from './merge-queue';
import type { WordTable } from './word-table';

export interface LearnMergesOptions {
  /** Tokens in all: special tokens, 256 bytes, results of merges. */
  readonly vocabSize: number;
  /** A pair must be at least this frequent. */
  readonly minFrequency: number;
  /** Tokens that take the first ids. */
  readonly specialTokens: readonly string[];
  readonly onProgress?: ((tokens: number) => void) | undefined;
}

export interface LearntMerges {
  /** Tokens by id, in byte characters. */
  readonly tokens: string[];
  /** Pairs by rank. */
  readonly merges: [string, string][];
}

/** All words as ids in one array; word w has `lengths[w]` ids from `starts[w]` on and came `counts[w]` times. */
interface Words {
  readonly ids: Int32Array;
  readonly starts: Int32Array;
  readonly lengths: Int32Array;
  readonly counts: Float64Array;
}

class Vocabulary {
  readonly tokens: string[] = [];
  readonly #idOf = new Map<string, number>();

  /** Returns the token's id, giving it the next one if it is new. */
  idOf(token: string): number {
    const known = this.#idOf.get(token);
    if (known !== undefined) return known;
    this.#idOf.set(token, this.tokens.length);
    return this.tokens.push(token) - 1;
  }
}

/** Learns merges from counted words. */
export function learnMerges(table: WordTable, options: LearnMergesOptions): LearntMerges {
  const vocabulary = new Vocabulary();
  for (const token of options.specialTokens) vocabulary.idOf(token);
  for (const char of [...BYTE_CHARS].sort()) vocabulary.idOf(char);
  const learner = new MergeLearner(spellWords(table, vocabulary));
  const merges: [number, number][] = [];
  while (vocabulary.tokens.length < options.vocabSize) {
    const next = learner.mostFrequent();
    if (!next || next.count < Math.max(1, options.minFrequency)) break;
    const { first, second } = next;
    merges.push([first, second]);
    learner.merge(next, vocabulary.idOf(vocabulary.tokens[first]! + vocabulary.tokens[second]!));
    options.onProgress?.(vocabulary.tokens.length);
  }
  return { tokens: vocabulary.tokens, merges: merges.map(([a, b]) => [vocabulary.tokens[a]!, vocabulary.tokens[b]!]) };
}

function spellWords(table: WordTable, vocabulary: Vocabulary): Words {
  const byteIds = Int32Array.from(BYTE_CHARS, (char) => vocabulary.idOf(char));
  const starts = new Int32Array(table.size);
  const lengths = new Int32Array(table.size);
  const encoder = new TextEncoder();
  let total = 0;
  let word = 0;
  for (const piece of table.pieces()) {
    starts[word] = total;
    lengths[word] = Buffer.byteLength(piece);
    total += lengths[word++]!;
  }
  const ids = new Int32Array(total);
  let at = 0;
  for (const piece of table.pieces()) for (const byte of encoder.encode(piece)) ids[at++] = byteIds[byte]!;
  return { ids, starts, lengths, counts: table.counts() };
}

class MergeLearner {
  readonly #words: Words;
  readonly #pairs = new PairTable(1 << 16);
  #counts = new Float64Array(1 << 17);
  readonly #queue = new MergeQueue();
  /** Words where a pair newly appeared since the queue was last fed, by pair number. */
  readonly #found: (number[] | undefined)[] = [];
  #foundPairs: number[] = [];
  #queued = 0;

  constructor(words: Words) {
    this.#words = words;
    for (let word = 0; word < words.lengths.length; word++) {
      const end = words.starts[word]! + words.lengths[word]!;
      for (let i = words.starts[word]!; i + 1 < end; i++) this.#appear(words.ids[i]!, words.ids[i + 1]!, word);
    }
    this.#enqueueFound();
  }

  /** Removes and returns the most frequent pair, its count up to date. */
  mostFrequent(): MergeCandidate | undefined {
    for (;;) {
      const front = this.#queue.pop();
      if (!front) return undefined;
      const count = this.#counts[front.pair]!;
      if (front.count === count) return front;
      front.count = count;
      this.#queue.push(front);
    }
  }

  /** Joins the pair into `merged` in each of its words. */
  merge({ first, second, words }: MergeCandidate, merged: number): void {
    for (const word of words) this.#mergeWord(word, first, second, merged);
    this.#enqueueFound();
  }

  #mergeWord(word: number, first: number, second: number, merged: number): void {
    const { ids, starts, lengths, counts } = this.#words;
    const start = starts[word]!;
    const end = start + lengths[word]!;
    const count = counts[word]!;
    let write = start;
    for (let read = start; read < end; read++, write++) {
      if (ids[read] !== first || read + 1 >= end || ids[read + 1] !== second) {
        ids[write] = ids[read]!;
        continue;
      }
      if (write > start) {
        const before = ids[write - 1]!;
        this.#disappear(before, first, count);
        this.#appear(before, merged, word);
      }
      if (read + 2 < end) {
        const after = ids[read + 2]!;
        this.#disappear(second, after, count);
        this.#appear(merged, after, word);
      }
      ids[write] = merged;
      read++;
    }
    lengths[word] = write - start;
  }

  #disappear(first: number, second: number, count: number): void {
    this.#counts[this.#pairNumber(first, second)]! -= count;
  }

  #appear(first: number, second: number, word: number): void {
    const pair = this.#pairNumber(first, second);
    this.#counts[pair]! += this.#words.counts[word]!;
    const words = this.#found[pair];
    if (!words) {
      this.#found[pair] = [word];
      this.#foundPairs.push(pair);
    } else if (words.at(-1) !== word) {
      words.push(word);
    }
  }

  #pairNumber(first: number, second: number): number {
    const pair = this.#pairs.number(first, second);
    if (pair >= this.#counts.length) {
      const grown = new Float64Array(this.#counts.length * 2);
      grown.set(this.#counts);
      this.#counts = grown;
    }
    return pair;
  }

  #enqueueFound(): void {
    for (const pair of this.#foundPairs) {
      const count = this.#counts[pair]!;
      const words = this.#found[pair]!;
      this.#found[pair] = undefined;
      if (count <= 0) continue;
      const [first, second] = [this.#pairs.firstOf(pair), this.#pairs.secondOf(pair)];
      this.#queue.push({ first, second, pair, words, count, order: this.#queued++ });
    }
    this.#foundPairs = [];
  }
}
