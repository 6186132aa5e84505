/** What the commands share that work with a model folder: flags for model and prompt, and loading with progress. */
import { type DeviceName, DsError } from '@ds/core-native';
import { InferenceEngine, type LoadOptions, type LoadProgress, type Prompt } from '@ds/inference';
import { type Command, InvalidArgumentError } from 'commander';
import { parseCount } from '../terminal/arguments';
import type { Output } from '../terminal/output';
import { type Progress, startProgress } from '../terminal/progress';

export interface EngineFlags {
  readonly device?: string;
  readonly dtype?: string;
  readonly weights?: string;
  readonly context?: number;
  readonly prompt?: string;
  readonly ids?: readonly number[];
}

/** Loading is shown when it takes longer than this. */
const patienceMs = 1000;

export function withEngineOptions(command: Command): Command {
  return command
    .option('--device <name>', 'cpu, cuda, or ref, the slow specification (default: cpu)')
    .option(
      '--dtype <dtype>',
      'hold weights, keys and values as f32, bf16 or f16 (default: f32, whatever the file holds)',
    )
    .option('--weights <format>', 'hold the weights as f32, bf16, f16, q8 or q4 (default: as --dtype)')
    .option('--context <tokens>', "tokens of the longest text, prompt included (default: the model's)", parseCount);
}

export function withPromptOptions(command: Command): Command {
  return command
    .option('--prompt <text>', 'the text to start from')
    .option('--ids <ids>', 'the ids of its tokens instead: 5,6,7', parseIds);
}

/** Reads ids: whole numbers between commas. */
export function parseIds(text: string): number[] {
  const words = text.split(',').map((word) => word.trim());
  if (words.every((word) => /^\d+$/.test(word))) return words.map(Number);
  throw new InvalidArgumentError('Expected ids of tokens, such as 5,6,7.');
}

/** Gives the one prompt of a command line. @throws CONFIG for none or two */
export function promptOf(op: string, { prompt, ids }: EngineFlags): Prompt {
  if (prompt !== undefined && ids === undefined) return prompt;
  if (ids !== undefined && prompt === undefined) return ids;
  throw new DsError({
    code: 'CONFIG',
    op,
    expected: 'either --prompt TEXT or --ids 5,6,7',
    actual: prompt === undefined ? 'neither' : 'both',
    hint: 'The prompt is what the model continues.',
  });
}

/** Loads the engine, showing how far it is where that takes a while. */
export async function loadEngine(
  dir: string,
  { device, dtype, weights, context }: EngineFlags,
  { quiet }: Output,
  signal?: AbortSignal,
): Promise<InferenceEngine> {
  const startMs = Date.now();
  let progress: Progress | undefined;
  const onProgress = ({ bytesDone, bytesTotal, tensor }: LoadProgress): void => {
    if (Date.now() - startMs < patienceMs) return;
    progress ??= startProgress({ title: 'loading', total: megabytes(bytesTotal), unit: 'MB', quiet });
    progress.update(megabytes(bytesDone), { tensor });
  };
  try {
    return await InferenceEngine.load(dir, {
      onProgress,
      ...(device === undefined ? {} : { device: device as DeviceName }),
      ...(dtype === undefined ? {} : { dtype: dtype as NonNullable<LoadOptions['dtype']> }),
      ...(weights === undefined ? {} : { weights: weights as NonNullable<LoadOptions['weights']> }),
      ...(context === undefined ? {} : { contextTokens: context }),
      ...(signal ? { signal } : {}),
    });
  } finally {
    progress?.stop();
  }
}

function megabytes(bytes: number): number {
  return Math.ceil(bytes / 1e6);
}
