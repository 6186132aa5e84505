/**
 * Units and their uses: ZeRO's only way into a model.
 *
 * A unit is what is gathered, released and reduced as one: a transformer block, the embedding. A use is one place in the
 * model's fixed order where a unit takes part; a tied embedding has two. Because the order is known before the first
 * step, the plan is too.
 */
import { scope } from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import type { Parameter } from './parameter';

export interface Unit {
  readonly name: string;
  readonly parameters: readonly Parameter[];
}

export interface UnitUse {
  /** Place in the model's order, from 0. */
  readonly index: number;
  readonly unit: Unit;
  /** Whether its backward reads the weights (that of a table look-up does not). */
  readonly backwardReadsWeights: boolean;
  /** When the gradient is written: the head computes its own while the logits are still there. */
  readonly gradientIn: 'forward' | 'backward';
}

/** Hears when a unit is about to be used, and when it was. */
export interface UnitObserver {
  beforeForward(use: UnitUse): void;
  afterForward(use: UnitUse): void;
  beforeBackward(use: UnitUse): void;
  afterBackward(use: UnitUse): void;
}

let observer: UnitObserver | undefined;

/** Lets `watcher` hear of every use that `fn` makes, forward and (through the tape) backward. */
export function withObserver<T>(watcher: UnitObserver, fn: () => T): T {
  const before = observer;
  observer = watcher;
  try {
    return fn();
  } finally {
    observer = before;
  }
}

/** Runs one use of a unit: what `fn` makes and does not return is gone afterwards, unless the tape holds it. */
export function runUse<T>(use: UnitUse, fn: () => T): T {
  const watcher = observer;
  const tape = currentTape();
  watcher?.beforeForward(use);
  if (watcher) tape?.mark(() => watcher.afterBackward(use));
  const result = scope(fn);
  if (watcher) tape?.mark(() => watcher.beforeBackward(use));
  watcher?.afterForward(use);
  return result;
}
