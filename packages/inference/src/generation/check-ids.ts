/** Checks that ids are of the vocabulary, before they reach anything that is indexed with them. */
import { DsError } from '@ds/core-native';
import type { ResolvedGenerateOptions } from './generate-options';

/** @throws CONFIG naming the first wrong id and its place */
export function checkIds(op: string, what: string, ids: readonly number[], vocabSize: number): void {
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (wrong < 0) return;
  throw new DsError({
    code: 'CONFIG',
    op,
    expected: `${what} from 0 to ${vocabSize - 1}`,
    actual: `${ids[wrong]} at place ${wrong}`,
  });
}

/** Checks the ids that options name. @throws CONFIG */
export function checkOptionIds(op: string, options: ResolvedGenerateOptions, vocabSize: number): void {
  checkIds(op, 'ids in stopTokenIds', options.stopTokenIds, vocabSize);
  checkIds(op, 'ids in logitBias', [...(options.sampling.logitBias?.keys() ?? [])], vocabSize);
}
