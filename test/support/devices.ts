/** The devices that a test of whole models runs on. */
import { cudaDevices, type DeviceName } from '@ds/core-native';

const cuda = cudaDevices().devices.length > 0;

/** `cpu`, its specification, and the emulated GPU where it was built: everywhere but where CUDA's headers are missing. */
export const computingDevices: readonly DeviceName[] = cuda ? ['cpu', 'ref', 'cuda:0'] : ['cpu', 'ref'];

/** Skips, with a word on why, what needs the emulated GPU. */
export const describeOnCuda: typeof describe.skip = cuda
  ? describe
  : Object.assign(
      (name: unknown, fn: () => void) => describe.skip(`${name} (no CUDA device was built)`, fn),
      describe.skip,
    );
