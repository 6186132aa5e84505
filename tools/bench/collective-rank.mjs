/** One rank of a collective bench: proves the result, warms up, and takes the time of calls queued one after the other. */
import { fill, ProcessGroup, Tensor } from '@ds/core-native';

const { primitive, bytes, iterations } = JSON.parse(process.argv[2]);
const group = await ProcessGroup.fromEnvironment();
const { rank, size } = group;
const n = bytes / 4;
// Enough for every program's compilers and caches: a quarter of a gigabyte, some calls at least.
const warmUp = Math.max(3, Math.ceil(2 ** 28 / bytes));
const full = Tensor.empty([n]);
const part = primitive === 'all_gather' ? full.view([n / size], (rank * n) / size) : Tensor.empty([n / size]);
const calls = {
  all_reduce: () => group.allReduce(full, full),
  all_gather: () => group.allGather(full, part),
  reduce_scatter: () => group.reduceScatter(part, full),
};
const call = calls[primitive];

full.write(Float32Array.from({ length: n }, (_, i) => (i % 97) * (rank + 1)));
call();
const got = await (primitive === 'reduce_scatter' ? part : full).read();
const at = [0, 1, 95, got.length - 1].map((i) => got[i]);
const result = [...at, got.reduce((sum, x) => sum + x, 0)];

fill(full, 0); // In place sums would grow out of range.
for (let i = 0; i < warmUp; i++) call();
group.barrier();
await full.device.stream.join();
const start = performance.now();
for (let i = 0; i < iterations; i++) call();
await full.device.stream.join();
const seconds = (performance.now() - start) / 1000;
const slowest = Math.max(...(await group.exchange(String(seconds))).map(Number));
if (rank === 0) console.log(JSON.stringify({ seconds: slowest, result }));
group.destroy();
