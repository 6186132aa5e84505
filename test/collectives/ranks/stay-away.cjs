// The last rank stays away from a collective, until the others have given up.
const { main, failureOf } = require('./rank.cjs');

main(async ({ group, args, core }) => {
  const device = core.device(args.device ?? 'cpu');
  const t = core.Tensor.empty([1024], { dtype: 'bf16', device });
  group.broadcast(t, 0, { tag: 'weights' });
  await device.stream.join();
  if (group.rank === group.size - 1) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    return { record: group.flightRecord() };
  }
  const sums = core.Tensor.empty([512], { device });
  group.allReduce(sums, sums, { tag: 'gradients of layer 3' });
  return { error: await failureOf(device.stream) };
});
