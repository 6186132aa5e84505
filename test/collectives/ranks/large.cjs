// Tensors beyond every internal block: larger than a slot, than all_reduce's blocks, than the caches.
const { main } = require('./rank.cjs');

const tables = Array.from({ length: 4 }, (_, rank) =>
  Float32Array.from({ length: 1009 }, (_, i) => Math.sin(i) * 10 ** (rank - 1)),
);
const value = (rank, i) => tables[rank][i % 1009];

/** Index of the first element that differs from what all ranks' values make, or -1. */
function firstWrong(got, N, from, what) {
  const n = got.length / N;
  for (let i = 0; i < got.length; i++) {
    let want = what === 'gather' ? value(Math.floor(i / n), i % n) : value(0, from + i);
    for (let q = 1; q < N && what !== 'gather'; q++) want = Math.fround(want + value(q, from + i));
    if (got[i] !== want) return i;
  }
  return -1;
}

main(async ({ group, args, core }) => {
  const { rank, size: N } = group;
  const { Tensor } = core;
  const { elements: n, device = 'cpu' } = args;
  const mine = Float32Array.from({ length: n * N }, (_, i) => value(rank, i));
  const fill = () => Tensor.from(mine, [n * N], { device });
  const results = {};

  const reduced = fill();
  group.allReduce(reduced, reduced);
  results.allReduce = firstWrong(await reduced.read(), N, 0);

  const odd = Tensor.empty([n * N - 1], { device });
  group.allReduce(odd, reduced.view([n * N - 1]));
  group.broadcast(reduced, N - 1);
  results.allReduceApart = (await odd.read()).length;

  const shard = Tensor.empty([n], { device });
  group.reduceScatter(shard, fill());
  results.reduceScatter = firstWrong(await shard.read(), N, rank * n);

  const full = fill();
  full.view([n], rank * n).writeBytes(mine.subarray(0, n));
  group.allGather(full, full.view([n], rank * n));
  results.allGather = firstWrong(await full.read(), N, 0, 'gather');

  if (N > 1) {
    const around = Tensor.empty([n], { device });
    if (rank === 0) group.send(full.view([n]), 1, { tag: 'large' });
    if (rank === 1) group.recv(around, 0, { tag: 'large' });
    await core.device(device).stream.join();
    results.message = rank === 1 ? (await around.read()).findIndex((x, i) => x !== value(0, i)) : -1;
  }
  return results;
});
