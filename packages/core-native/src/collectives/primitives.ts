/** The primitives that groups count, in the order of csrc/collectives/call.h. */
export const primitives = [
  'allReduce',
  'reduceScatter',
  'allGather',
  'broadcast',
  'allToAll',
  'send',
  'recv',
  'barrier',
  'exchange',
] as const;

export type Primitive = (typeof primitives)[number];

export interface Traffic {
  calls: number;
  /** Sent by this rank, as a ring would: a fraction where the elements do not divide by the ranks. */
  elements: number;
  bytes: number;
}

/** What this rank has sent. The totals leave out `exchange`, which is the program's own notes and no tensors. */
export interface GroupCounters extends Traffic {
  byPrimitive: Record<Primitive, Traffic>;
}
