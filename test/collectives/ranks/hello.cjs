// Joins, adds up the ranks, and shows what the launcher gave it.
const { main } = require('./rank.cjs');

main(async ({ group, core }) => {
  const t = core.Tensor.from([group.rank + 1], [1]);
  group.allReduce(t, t);
  const texts = await group.exchange(['', 'zwei', 'три', '🍀'.repeat(50)][group.rank % 4]);
  return {
    size: group.size,
    sum: await t.item(),
    texts,
    transport: group.transport,
    threads: core.threads(),
    leftOver: [process.env.DS_COMM_FD, process.env.DS_LAUNCHER_PID].filter((x) => x !== undefined),
  };
});
