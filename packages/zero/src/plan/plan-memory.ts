/** What a plan holds while it runs: weights and gradients, whole, cut, gathered and on their way. Not activations. */
import type { Plan } from './plan';

export interface ElementSizes {
  readonly paramBytes: number;
  readonly gradBytes: number;
  /** Micro-batches in a step; with more than one, reduced gradients stay beside the whole ones. */
  readonly accumulation: number;
}

/**
 * Gives the bytes of weights and gradients at each computation of a micro-batch, in order.
 *
 * Optimizer states are left out: they stay. Activations depend on the model, not on the stage; so of two plans of one
 * model, one that is nowhere higher here has the lower peak.
 */
export function planMemory(plan: Plan, { paramBytes, gradBytes, accumulation }: ElementSizes): number[] {
  let held = 0;
  for (const { layout, policy } of plan.units) {
    held += (policy.param === 'none' ? layout.paddedElements : layout.shardElements) * paramBytes;
    if (policy.grad === 'none') held += layout.paddedElements * gradBytes;
    if (accumulation > 1) held += layout.shardElements * gradBytes;
  }
  const atComputes: number[] = [];
  for (const op of plan.microBatch) {
    if (op.op === 'compute') {
      atComputes.push(held);
      continue;
    }
    if (op.op === 'sumNorms') continue;
    const { layout, policy } = plan.units[op.unit]!;
    const whole = layout.paddedElements;
    if (op.op === 'gather') held += whole * paramBytes;
    if (op.op === 'release') held -= whole * paramBytes;
    if (policy.grad === 'none') continue;
    if (op.op === 'openGradient') held += whole * gradBytes;
    if (op.op === 'closeGradient') held -= whole * gradBytes;
    if (op.op === 'reduce' && accumulation === 1) held += layout.shardElements * gradBytes;
  }
  return atComputes;
}
