/** Argument checks of the estimates: every formula divides by something a person typed. */
import { DsError } from '@ds/core-native';

/** @throws DsError CONFIG when `value` is not a finite number ≥ `min` */
export function requireAtLeast(op: string, name: string, value: number, min: number): void {
  if (!Number.isFinite(value) || value < min) {
    throw new DsError({ code: 'CONFIG', op, expected: `${name} to be a number ≥ ${min}`, actual: String(value) });
  }
}

/** @throws DsError CONFIG when `value` is not a whole number ≥ 1 */
export function requireCount(op: string, name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new DsError({ code: 'CONFIG', op, expected: `${name} to be an integer ≥ 1`, actual: String(value) });
  }
}
