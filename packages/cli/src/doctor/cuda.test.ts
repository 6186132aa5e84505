import { type CudaNumbers, whyNot } from './cuda';

const machine: CudaNumbers = {
  driver: '550.54.15',
  devices: ['NVIDIA H100'],
  toolkit: '13.0',
  kernels: false,
  library: '/x/ds-core-cuda.so',
  problem: '/x/ds-core-cuda.so: cannot open shared object file: No such file or directory',
};

describe('why CUDA is not used', () => {
  it.each<[string, Partial<CudaNumbers>, string]>([
    ['no driver', { driver: null, devices: [] }, 'this machine has no NVIDIA driver; everything runs on the CPU'],
    [
      'an old driver',
      { driver: '470.82.01' },
      'driver 470.82.01 is too old: 525 or newer is needed; everything runs on the CPU',
    ],
    ['no GPU', { devices: [] }, 'the driver lists no GPU; everything runs on the CPU'],
    [
      'no library',
      {},
      '/x/ds-core-cuda.so is not there: build it: DS_CUDA=on npm run build; everything runs on the CPU',
    ],
    [
      'neither library nor toolkit',
      { toolkit: null },
      '/x/ds-core-cuda.so is not there: install the CUDA toolkit (12.3 or newer) and build it: npm run build; everything runs on the CPU',
    ],
    [
      'a library of another build',
      { problem: '/x/ds-core-cuda.so is not a CUDA library of this build (version 1, wanted 2)' },
      '/x/ds-core-cuda.so is not a CUDA library of this build (version 1, wanted 2); everything runs on the CPU',
    ],
    ['no addon', { library: null }, 'the addon cannot be loaded; everything runs on the CPU'],
  ])('%s', (_, numbers, line) => {
    expect(whyNot({ ...machine, ...numbers })).toBe(line);
  });
});
