/** Checks of an engine's options, and the limits that stay at their defaults. */
import { checkOptions, rules } from '../options';
import { defaultLimits, type SchedulerLimits } from './scheduler';
import type { ServingOptions } from './serving-engine';

const object = { expected: 'an object', allows: (v: unknown) => typeof v === 'object' && v !== null };

/** @throws CONFIG */
export function checkServingOptions(options: ServingOptions): void {
  const op = 'ServingEngine';
  checkOptions<ServingOptions>(op, options, {
    runner: object,
    tokenizer: object,
    endTokenIds: rules.ids,
    contextTokens: rules.wholeFrom(1),
    limits: object,
    prefixCache: rules.flag,
    drafter: object,
    draftTokens: rules.wholeFrom(1),
  });
  checkOptions<Partial<SchedulerLimits>>(op, options.limits ?? {}, {
    stepTokens: rules.wholeFrom(1),
    sequences: rules.wholeFrom(1),
    // One at least: a prompt whose tokens are scored could not go on without.
    spareLogitRows: rules.wholeFrom(1),
    waiting: rules.wholeFrom(1),
  });
}

export function resolveLimits(limits: Partial<SchedulerLimits> = {}): SchedulerLimits {
  return {
    stepTokens: limits.stepTokens ?? defaultLimits.stepTokens,
    sequences: limits.sequences ?? defaultLimits.sequences,
    spareLogitRows: limits.spareLogitRows ?? defaultLimits.spareLogitRows,
    waiting: limits.waiting ?? defaultLimits.waiting,
  };
}
