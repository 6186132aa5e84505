// The last rank stays away from a collective, until the others have given up.
const { main, failureOf } = require('./rank.cjs');

main(async ({ group, core }) => {
  const t = core.Tensor.empty([1024], { dtype: 'bf16' });
  group.broadcast(t, 0, { tag: 'weights' });
  await core.device('cpu').stream.join();
  if (group.rank === group.size - 1) {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    return { record: group.flightRecord() };
  }
  const sums = core.Tensor.empty([512]);
  group.allReduce(sums, sums, { tag: 'gradients of layer 3' });
  return { error: await failureOf(core.device('cpu').stream) };
});
