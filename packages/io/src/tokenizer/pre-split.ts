/**
 * The two ways in which byte-level BPE cuts text into pieces before merging: BLOOM's and GPT-2's.
 *
 * White space here is Unicode's White_Space, as in the Rust library: with U+0085, without U+FEFF. JavaScript's `\s` is the
 * reverse in both.
 */

/** A pattern as `tokenizer.json` spells it. Matches become pieces, and so does what lies between them. */
export const PRE_SPLIT_PATTERNS = Object.freeze({
  /** In Oniguruma the inner bracket is a nested class: the excluded set is `( ) |`, white space and the marks listed. */
  bloom: ' ?[^(\\s|[.,!?…。，、।۔،])]+',
  gpt2: "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
});

export type PreSplitName = keyof typeof PRE_SPLIT_PATTERNS;

const GPT2 =
  /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

const SPACE = 0x20;

/** 1 for each UTF-16 unit that a BLOOM word cannot contain. All lie in the basic plane. */
const EXCLUDED = excludedUnits();

function excludedUnits(): Uint8Array {
  const flags = new Uint8Array(0x10000);
  for (let unit = 0; unit < 0x3100; unit++) {
    if (/\p{White_Space}/u.test(String.fromCharCode(unit))) flags[unit] = 1;
  }
  for (const char of '()|.,!?…。，、।۔،') flags[char.charCodeAt(0)] = 1;
  return flags;
}

/** Cuts as BLOOM does: words with at most one space before them, and runs of excluded characters between. */
function splitBloom(text: string): string[] {
  const pieces: string[] = [];
  const length = text.length;
  let begin = 0;
  while (begin < length) {
    let word = begin;
    while (word < length && !wordStartsAt(text, word)) word++;
    if (word > begin) pieces.push(text.slice(begin, word));
    if (word === length) break;
    let end = word + 1;
    while (end < length && EXCLUDED[text.charCodeAt(end)] === 0) end++;
    pieces.push(text.slice(word, end));
    begin = end;
  }
  return pieces;
}

function wordStartsAt(text: string, at: number): boolean {
  const unit = text.charCodeAt(at);
  if (EXCLUDED[unit] === 0) return true;
  return unit === SPACE && at + 1 < text.length && EXCLUDED[text.charCodeAt(at + 1)] === 0;
}

const splitGpt2 = (text: string): string[] => text.match(GPT2) ?? [];

/** Returns the function that cuts well-formed text into pieces; joined, they are the text. */
export function preSplitter(name: PreSplitName): (text: string) => string[] {
  return name === 'bloom' ? splitBloom : splitGpt2;
}

/** Returns the name of a pattern as a `tokenizer.json` spells it, or undefined for any other. */
export function preSplitNameOf(pattern: string): PreSplitName | undefined {
  if (pattern === PRE_SPLIT_PATTERNS.bloom) return 'bloom';
  return pattern === PRE_SPLIT_PATTERNS.gpt2 ? 'gpt2' : undefined;
}
