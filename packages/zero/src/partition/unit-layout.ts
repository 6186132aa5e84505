/**
 * Who owns which elements: pure functions, no communication.
 *
 * The parameters of a unit lie back to back in one flat buffer, which is padded at its end so that N shards of equal
 * size, starting at multiples of 64 bytes, cover it. Shard r is the r-th piece; its border may cut through a parameter.
 */
import type { Parameter, Unit } from '@ds/nn';

/** Shards start at multiples of this many elements: a cache line of the smallest type, 16-bit. */
export const shardAlignment = 32;

export interface ParameterPlace {
  readonly parameter: Parameter;
  /** Where it starts in the unit's buffer, in elements. */
  readonly offset: number;
}

/** A piece of a parameter inside one rank's shard. */
export interface ShardRange {
  readonly parameter: Parameter;
  /** Where the piece starts in the parameter, and in the shard, in elements. */
  readonly parameterStart: number;
  readonly shardStart: number;
  readonly count: number;
}

export interface UnitLayout {
  readonly unit: Unit;
  readonly places: readonly ParameterPlace[];
  /** Elements of the parameters alone. */
  readonly elements: number;
  /** With the padding at the end; a multiple of N. */
  readonly paddedElements: number;
  readonly shardElements: number;
  readonly world: number;
}

export function layoutUnit(unit: Unit, world: number): UnitLayout {
  let offset = 0;
  const places = unit.parameters.map((parameter) => {
    const place = { parameter, offset };
    offset += parameter.numel;
    return place;
  });
  const shardElements = Math.ceil(offset / (world * shardAlignment)) * shardAlignment;
  return { unit, places, elements: offset, paddedElements: shardElements * world, shardElements, world };
}

/** Lists the pieces of parameters that elements [start, start + count) of the unit's buffer hold. */
export function rangesBetween(layout: UnitLayout, start: number, count: number): ShardRange[] {
  const ranges: ShardRange[] = [];
  for (const { parameter, offset } of layout.places) {
    const from = Math.max(start, offset);
    const to = Math.min(start + count, offset + parameter.numel);
    if (from < to)
      ranges.push({ parameter, parameterStart: from - offset, shardStart: from - start, count: to - from });
  }
  return ranges;
}

/** Lists the pieces of parameters that a rank's shard holds. */
export function shardRanges(layout: UnitLayout, rank: number): ShardRange[] {
  return rangesBetween(layout, rank * layout.shardElements, layout.shardElements);
}
