/** Where a run keeps what, below its output folder. */
import fs = require('node:fs');
import path = require('node:path');

export function checkpointsFolder(output: string): string {
  return path.join(output, 'checkpoints');
}

/** The Hugging Face folder of the trained model. */
export function modelFolder(output: string): string {
  return path.join(output, 'model');
}

/** Text as token files, and the tokenizer. */
export function dataFolder(output: string): string {
  return path.join(output, 'data');
}

/** The file whose presence asks a run to stop. */
export function stopFile(output: string): string {
  return path.join(output, 'stop');
}

/** Says whether a run left a checkpoint to go on from. */
export function hasCheckpoint(output: string): boolean {
  return fs.existsSync(path.join(checkpointsFolder(output), 'latest'));
}
