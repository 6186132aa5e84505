/** Ranks that call different things: the same sentences, whatever moves the data. */
import type { ReportedError } from './run-ranks';

/** What a rank of ranks/mismatch.cjs reports: the errors of the call that differs and of the next one. */
export interface Outcome {
  first?: ReportedError;
  next?: ReportedError;
  waited: number;
}

const first = 'ranks 0, 1: ';

/** The ways in which rank 2 may differ, and what each must be told as. */
export const mismatches: [variant: string, calls: string][] = [
  ['primitive', `${first}allReduce #2 f32 x 4 (16 bytes); rank 2: allGather #2 f32 x 12 (48 bytes)`],
  ['dtype', `${first}allGather #2 "weights" f32 x 12 (48 bytes); rank 2: allGather #2 "weights" i32 x 12 (48 bytes)`],
  [
    'count',
    `${first}allReduce #2 "grads" f32 x 4 (16 bytes); rank 2: allReduce #2 "grads" f32 x 100000 (400000 bytes)`,
  ],
  ['root', `${first}broadcast #2 f32 x 4 (16 bytes) from 0; rank 2: broadcast #2 f32 x 4 (16 bytes) from 1`],
  ['tag', `${first}allReduce #2 "layer 1" f32 x 4 (16 bytes); rank 2: allReduce #2 "layer 2" f32 x 4 (16 bytes)`],
  ['scale', `${first}allReduce #2 f32 x 4 (16 bytes); rank 2: allReduce #2 f32 x 4 (16 bytes) scale 0.500000`],
];
