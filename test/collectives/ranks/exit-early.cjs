// Rank 0 exits with a call of its own still waiting: its exit must not wait for the call, nor the others for it.
const { main, failureOf } = require('./rank.cjs');

main(async ({ group, args, core }) => {
  const device = core.device(args.device ?? 'cpu');
  const t = core.Tensor.from(new Float32Array(1 << 19), [1 << 19], { device });
  group.allReduce(t, t, { tag: 'together' });
  await device.stream.join();
  if (group.rank === 1) await new Promise((resolve) => setTimeout(resolve, 3000));
  group.allReduce(t, t, { tag: 'too late' });
  if (group.rank === 0) setTimeout(() => process.exit(0), 100);
  return failureOf(device.stream);
});
