// What a rank counts, call by call, for tensors that hold data or for those of the null device.
const { main } = require('./rank.cjs');

function calls(group, core, device) {
  const { rank, size: N } = group;
  const make = (n, dtype) => core.Tensor.empty([n], { dtype, device });
  const list = [
    () => group.allReduce(make(7, 'f32'), make(7, 'f32')),
    () => group.allReduce(make(10, 'f32'), make(10, 'bf16')),
    () => group.reduceScatter(make(5, 'f32'), make(5 * N, 'bf16')),
    () => group.reduceScatter(make(5, 'f16'), make(5 * N, 'f16'), { accumulate: true }),
    () => group.allGather(make(3 * N, 'bf16'), make(3, 'bf16')),
    () => group.broadcast(make(11, 'u8'), 0),
    () => group.allToAll(make(2 * N, 'f64'), make(2 * N, 'f64')),
    () => group.barrier(),
  ];
  if (N > 1 && rank === 0) list.push(() => group.send(make(9, 'i32'), 1));
  if (N > 1 && rank === 1) list.push(() => group.recv(make(9, 'i32'), 0));
  return list;
}

main(async ({ group, args, core }) => {
  const { device = 'cpu' } = args;
  for (const call of calls(group, core, device)) call();
  await core.device(device).stream.join();
  await group.exchange('not counted among the data');
  const real = group.counters();
  const planned = core.ProcessGroup.null(group.size, group.rank);
  for (const call of calls(planned, core, 'null')) call();
  const plan = planned.counters();
  // The barrier is the host's: nobody leaves before all are done.
  group.barrier();
  await core.device('cpu').stream.join();
  group.resetCounters();
  return { real, plan, afterReset: group.counters().calls };
});
