/** Decides where a run begins: anew, or from a checkpoint. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError } from '@ds/core-native';
import { CheckpointReader, type TrainConfig } from '@ds/zero';
import { checkpointsFolder, hasCheckpoint } from './places';

export interface ResumePoint {
  /** Folder of one checkpoint; null begins anew. */
  readonly folder: string | null;
  readonly stepsTaken: number;
}

const anew: ResumePoint = { folder: null, stepsTaken: 0 };

/**
 * Finds the checkpoint that a config's `resume` means.
 * @throws CHECKPOINT when there is none and one is needed, or it is not whole
 */
export function findResumePoint({ resume, output }: Pick<TrainConfig, 'resume' | 'output'>): ResumePoint {
  if (resume === false) return anew;
  if (resume === 'auto') return hasCheckpoint(output) ? open(checkpointsFolder(output)) : anew;
  if (resume === true) {
    if (hasCheckpoint(output)) return open(checkpointsFolder(output));
    throw new DsError({
      code: 'CHECKPOINT',
      op: 'resume',
      expected: `a checkpoint in ${checkpointsFolder(output)}`,
      actual: 'none',
      hint: 'Write "resume": "auto" to begin anew where there is none.',
    });
  }
  // The folder of a checkpoint, of all checkpoints, or of a run.
  return open(fs.existsSync(path.join(resume, 'checkpoints')) ? path.join(resume, 'checkpoints') : resume);
}

function open(folder: string): ResumePoint {
  using reader = CheckpointReader.open(folder);
  return { folder: reader.path, stepsTaken: reader.manifest.stepsTaken };
}
