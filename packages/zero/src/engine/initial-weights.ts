/**
 * First weights: every rank draws or reads only what it owns, so that no rank ever holds a whole model at the start.
 * An element's first value depends on the seed, the parameter's name and its index, not on who draws it.
 */
import { fill, fillNormal, keep } from '@ds/core-native';
import type { UnitStorage } from '../partition/unit-storage';

/** Gives elements [start, start + count) of a parameter, fp32; for weights that come from files. */
export type WeightSource = (name: string, start: number, count: number) => Float32Array;

/** Puts first weights into the master copies of a unit, drawn as the model says or read from `source`. */
export function writeInitialWeights(storage: UnitStorage, seed: number, source?: WeightSource): void {
  for (const { parameter, parameterStart, shardStart, count } of storage.optimizedRanges()) {
    using piece = keep(storage.master.view([count], shardStart));
    if (source) piece.writeBytes(source(parameter.name, parameterStart, count));
    else if (parameter.init.kind === 'constant') fill(piece, parameter.init.value);
    else
      fillNormal(piece, {
        std: parameter.init.std,
        seed: seedOf(seed, parameter.name),
        offset: parameterStart,
      });
  }
  storage.castMaster();
}

/** Mixes a run's seed with a name to 48 bits (FNV-1a, twice 24). */
function seedOf(seed: number, name: string): number {
  let low = 0x811c9dc5 ^ seed;
  let high = 0x01000193 ^ Math.floor(seed / 2 ** 24);
  for (let i = 0; i < name.length; i++) {
    low = Math.imul(low ^ name.charCodeAt(i), 0x01000193);
    high = Math.imul(high ^ low, 0x85ebca6b);
  }
  return (low >>> 8) + (high >>> 8) * 2 ** 24;
}
