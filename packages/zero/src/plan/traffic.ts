/** What a plan sends: elements and bytes a rank, as a ring would (and our collectives count). */
import type { Plan, PlanOp } from './plan';

export interface PlannedTraffic {
  /** Sent by one rank in one step of `accumulation` micro-batches, padding included. */
  readonly elements: number;
  readonly bytes: number;
}

/**
 * Counts a step. A gather or a reduction of n elements sends (N-1)/N n from each rank.
 * Source: Rajbhandari et al. 2020, sec. 7: 2 Psi for stages 0 to 2, 3 Psi for stage 3.
 */
export function planTraffic(
  plan: Plan,
  dtypes: { paramBytes: number; gradBytes: number },
  accumulation = 1,
): PlannedTraffic {
  const count = (ops: readonly PlanOp[]) => {
    let elements = 0;
    let bytes = 0;
    for (const op of ops) {
      if (op.op === 'sumNorms') {
        const sent = allReduced(plan, 2);
        elements += sent;
        bytes += sent * 8;
        continue;
      }
      const size = elementBytes(op, dtypes);
      if (size === 0 || op.op === 'compute') continue;
      const { paddedElements, shardElements } = plan.units[op.unit]!.layout;
      elements += paddedElements - shardElements;
      bytes += (paddedElements - shardElements) * size;
    }
    return { elements, bytes };
  };
  const micro = count(plan.microBatch);
  const step = count(plan.step);
  return {
    elements: accumulation * micro.elements + step.elements,
    bytes: accumulation * micro.bytes + step.bytes,
  };
}

/** What a rank sends to sum so many numbers of every parameter: (N-1)/N of them twice. */
function allReduced({ units }: Plan, perParameter: number): number {
  const parameters = units.reduce((sum, { layout }) => sum + layout.places.length, 0);
  const world = units[0]?.layout.world ?? 1;
  return (2 * (world - 1) * parameters * perParameter) / world;
}

function elementBytes({ op }: PlanOp, { paramBytes, gradBytes }: { paramBytes: number; gradBytes: number }): number {
  if (op === 'gather' || op === 'gatherUpdated') return paramBytes;
  if (op === 'reduce' || op === 'gatherGradient') return gradBytes;
  return 0;
}
