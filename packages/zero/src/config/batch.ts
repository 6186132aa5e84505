/** The batch triangle: train_batch_size = train_micro_batch_size_per_gpu × gradient_accumulation_steps × ranks. */
import type { ProblemList } from './config-error';

/** Samples per optimizer step, and how they are cut over ranks and micro-batches. */
export interface BatchSizes {
  /** Samples per optimizer step over all ranks. */
  readonly global: number;
  /** Samples one rank runs at a time. */
  readonly micro: number;
  /** Micro-batches per optimizer step. */
  readonly accumulation: number;
}

type Side = number | 'auto' | undefined;

export interface BatchKeys {
  readonly train_batch_size?: Side;
  readonly train_micro_batch_size_per_gpu?: Side;
  readonly gradient_accumulation_steps?: Side;
}

const globalKey = 'train_batch_size';
const microKey = 'train_micro_batch_size_per_gpu';
const accumulationKey = 'gradient_accumulation_steps';
const equation = `${globalKey} = ${microKey} × ${accumulationKey} × ranks`;

/**
 * Completes the triangle as DeepSpeed does: two sides give the third; one of global or micro gives the others with no accumulation. "auto" counts as
 * not given, and where all that is given is "auto" the smallest batch is taken: one sample a rank.
 *
 * @param smallestBatchIfNone whether a config without any of the keys may stand (a plan needs no batch)
 * @returns null when a problem was noted
 */
export function resolveBatch(
  keys: BatchKeys,
  world: number,
  smallestBatchIfNone: boolean,
  problems: ProblemList,
): BatchSizes | null {
  const given = (side: Side) => (typeof side === 'number' ? side : null);
  const global = given(keys.train_batch_size);
  const micro = given(keys.train_micro_batch_size_per_gpu);
  const accumulation = given(keys.gradient_accumulation_steps);
  if (global === null) {
    const anyAuto = Object.values(keys).includes('auto');
    if (micro === null && !anyAuto && !smallestBatchIfNone) {
      addMissing(accumulation, problems);
      return null;
    }
    const oneMicro = micro ?? 1;
    const steps = accumulation ?? 1;
    return { global: oneMicro * steps * world, micro: oneMicro, accumulation: steps };
  }
  if (micro !== null) {
    const steps = accumulation ?? global / (micro * world);
    if (!Number.isInteger(steps) || micro * steps * world !== global) {
      addUnequal(global, micro, accumulation, world, problems);
      return null;
    }
    return { global, micro, accumulation: steps };
  }
  const steps = accumulation ?? 1;
  const perRank = global / (steps * world);
  if (!Number.isInteger(perRank)) {
    addIndivisible(global, accumulation, world, problems);
    return null;
  }
  return { global, micro: perRank, accumulation: steps };
}

function addMissing(accumulation: number | null, problems: ProblemList): void {
  const found = accumulation === null ? 'none of the three' : `only ${accumulationKey} = ${accumulation}`;
  problems.add([globalKey], {
    kind: 'missing',
    expected: `${globalKey} or ${microKey}`,
    found,
    hint: `${equation}; write any two of them, or "auto" for the smallest batch.`,
  });
}

/** Global and micro are given, and perhaps accumulation, and do not fit. */
function addUnequal(
  global: number,
  micro: number,
  accumulation: number | null,
  world: number,
  problems: ProblemList,
): void {
  const perPass = micro * world;
  const found =
    accumulation === null
      ? `${global}, not a multiple of ${micro} × ${ranks(world)} = ${perPass}`
      : `${global} ≠ ${micro} × ${accumulation} × ${ranks(world)} = ${perPass * accumulation}`;
  addTriangle(found, batchFixes({ global, micro, accumulation }, world), problems);
}

/** Global is given, and perhaps accumulation, and the micro batch would not be whole. */
function addIndivisible(global: number, accumulation: number | null, world: number, problems: ProblemList): void {
  const by = accumulation === null ? ranks(world) : `${accumulation} × ${ranks(world)} = ${accumulation * world}`;
  const found = `${global}, not a multiple of ${by}`;
  addTriangle(found, batchFixes({ global, micro: null, accumulation }, world), problems);
}

function addTriangle(found: string, fixes: readonly BatchFix[], problems: ProblemList): void {
  const list = fixes.map((fix, i) => `(${i + 1}) ${fix.text}`).join('; ');
  problems.add([globalKey], {
    kind: 'conflict',
    expected: equation,
    found,
    hint: `Any one of these fixes it: ${list}.`,
  });
}

/** One way out: what to set, in words and as values. `world` is there when the number of ranks is to change. */
export interface BatchFix {
  readonly text: string;
  readonly keys: BatchKeys;
  readonly world: number;
}

interface GivenBatch {
  readonly global: number;
  readonly micro: number | null;
  readonly accumulation: number | null;
}

const maxFixes = 3;

/**
 * Finds up to three changes that make a batch fit, those first that change one number and keep the global batch.
 * Exported for its test, which applies every fix.
 */
export function batchFixes(batch: GivenBatch, world: number): readonly BatchFix[] {
  const { global, micro, accumulation } = batch;
  const fixes: BatchFix[] = [];
  const given: BatchKeys = {
    [globalKey]: global,
    ...(micro !== null && { [microKey]: micro }),
    ...(accumulation !== null && { [accumulationKey]: accumulation }),
  };
  const add = (values: Partial<Record<keyof BatchKeys, number>>, newWorld = world) => {
    const changed = Object.entries(values).filter(([key, value]) => value !== given[key as keyof BatchKeys]);
    if (changed.some(([, value]) => !Number.isInteger(value) || value < 1)) return;
    const words = changed.map(([key, value]) => `"${key}": ${value}`);
    if (newWorld !== world) words.push(ranks(newWorld));
    const text = words.join(' with ');
    if (text === '' || fixes.length === maxFixes || fixes.some((fix) => fix.text === text)) return;
    fixes.push({ text, keys: { ...given, ...values }, world: newWorld });
  };
  const perRank = global / world;
  if (micro !== null && accumulation !== null) {
    add({ [accumulationKey]: perRank / micro });
    add({ [microKey]: perRank / accumulation });
  }
  if (Number.isInteger(perRank)) {
    if (micro === null) add({ [accumulationKey]: largestDivisor(perRank, accumulation ?? 1) });
    else {
      const newMicro = largestDivisor(perRank, micro);
      add({ [microKey]: newMicro, ...(accumulation === null ? {} : { [accumulationKey]: perRank / newMicro }) });
    }
  }
  const unit = (micro ?? 1) * (accumulation ?? 1);
  const multiple = (count: number) => {
    const values = { [globalKey]: count * unit * world };
    add(micro !== null && accumulation !== null ? { ...values, [accumulationKey]: count * accumulation } : values);
  };
  const near = Math.max(1, Math.round(global / (unit * world)));
  multiple(near);
  if (Number.isInteger(global / unit)) {
    const whole = micro !== null && accumulation !== null;
    add({}, whole ? global / unit : largestDivisor(global / unit, world));
  }
  multiple(1);
  multiple(near + 1);
  return fixes;
}

function ranks(world: number): string {
  return world === 1 ? '1 rank' : `${world} ranks`;
}

/** Gives the largest divisor of `value` that is at most `limit`; both are whole and ≥ 1. */
function largestDivisor(value: number, limit: number): number {
  let divisor = Math.min(limit, value);
  while (value % divisor !== 0) divisor--;
  return divisor;
}
