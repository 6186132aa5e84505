/**
 * The two memory tables of the ZeRO paper, drawn from the formulas and printed as the paper prints them.
 *
 * Source: ZeRO (2020), Tables 1 and 2.
 */
import { maxParams, modelStateBytes, type ZeroStage } from './model-states';

/** Data-parallel degrees and model sizes of Table 1. */
export const table1Worlds = [1, 4, 16, 64, 256, 1024] as const;
export const table1Params = [7.5e9, 128e9, 1e12] as const;
export const table1Stages = [1, 2, 3] as const;

export interface Table1Cell {
  readonly world: number;
  readonly params: number;
  readonly stage: ZeroStage;
  /** Gigabytes (1e9 bytes) of one rank as the paper prints them. */
  readonly printed: string;
}

/**
 * Prints bytes as gigabytes the way Table 1 does: two decimals below 10 GB and one below 100 GB, rounded half up, trailing zeros dropped;
 * from 100 GB whole numbers, cut off and not rounded (4187.5 is printed as 4187).
 */
export function printTable1Gigabytes(bytes: number): string {
  const gigabytes = bytes / 1e9;
  if (gigabytes >= 100) return String(Math.floor(gigabytes));
  const scale = gigabytes < 10 ? 100 : 10;
  return String(Math.round(gigabytes * scale) / scale);
}

/** Gives all 54 cells of Table 1: model-state gigabytes per rank in mixed precision, for stages 1, 2 and 3. */
export function zeroTable1(): readonly Table1Cell[] {
  const cells: Table1Cell[] = [];
  for (const world of table1Worlds) {
    for (const params of table1Params) {
      for (const stage of table1Stages) {
        const bytes = modelStateBytes({ params, world, stage }).modelStateBytes;
        cells.push({ world, params, stage, printed: printTable1Gigabytes(bytes) });
      }
    }
  }
  return cells;
}

export interface Table2Row {
  readonly modelParallel: number;
  readonly gpus: number;
  /** Largest Ψ in theory on 32 GB devices, by stage 0..3. */
  readonly maxParamsByStage: readonly [number, number, number, number];
}

/** Gives the theory half of Table 2: the largest model on 32 GB devices, cut over 1..16 devices by tensor and 64 by data parallelism. */
export function zeroTable2(): readonly Table2Row[] {
  const world = 64;
  const memoryBytes = 32e9;
  return [1, 2, 4, 8, 16].map((modelParallel) => {
    const largest = (stage: ZeroStage) => maxParams({ memoryBytes, world, stage, modelParallel });
    return {
      modelParallel,
      gpus: modelParallel * world,
      maxParamsByStage: [largest(0), largest(1), largest(2), largest(3)],
    };
  });
}
