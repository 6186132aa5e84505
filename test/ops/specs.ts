/** Finds every `<op>.cases.ts` of core-native. */
import { readdirSync } from 'node:fs';
import path from 'node:path';
import type { OpCases } from '../../packages/core-native/csrc/kernels/common/cases';

const kernels = path.resolve(__dirname, '../../packages/core-native/csrc/kernels');

export function allSpecs(): OpCases[] {
  return readdirSync(kernels, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.cases.ts'))
    .sort()
    .flatMap((file) => Object.values(require(path.join(kernels, file)) as Record<string, OpCases>));
}
