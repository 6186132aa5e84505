// An addon lives in Node's own realm. jest gives every test file a realm of its own, so without this list
// `x instanceof Float32Array` and `toThrow(RangeError)` are false for what the addon returns or throws.
const { existsSync } = require('node:fs');
const path = require('node:path');
const { TestEnvironment } = require('jest-environment-node');

// The CUDA device of the tests is the emulated one, built beside the addon. Where it was not built, tests of it are skipped.
const addon =
  process.env.DS_NATIVE_PATH ?? path.join(__dirname, '../../packages/core-native/build/Release/ds-core-native.node');
const emulated = path.join(path.dirname(path.resolve(addon)), 'ds-core-cuda-emulated.so');
if (process.env.DS_CUDA_LIBRARY === undefined && existsSync(emulated)) process.env.DS_CUDA_LIBRARY = emulated;
// NCCL is one of ours, too, where the device is.
const fakeNccl = path.join(path.dirname(emulated), 'ds-fake-nccl.so');
if (process.env.DS_CUDA_LIBRARY === emulated && existsSync(fakeNccl)) process.env.DS_NCCL_LIBRARY ??= fakeNccl;

const SHARED = [
  'ArrayBuffer',
  'SharedArrayBuffer',
  'Float32Array',
  'Float64Array',
  'Int8Array',
  'Int16Array',
  'Int32Array',
  'Uint8Array',
  'Uint16Array',
  'Uint32Array',
  'BigInt64Array',
  'BigUint64Array',
  'DataView',
  'Error',
  'TypeError',
  'RangeError',
];

module.exports = class NodeEnvironment extends TestEnvironment {
  constructor(config, context) {
    super(config, context);
    for (const name of SHARED) this.global[name] = globalThis[name];
  }
};
