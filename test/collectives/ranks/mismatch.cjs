// One rank does something else than the others; every rank reports how that ended.
const { main, failureOf } = require('./rank.cjs');

main(async ({ group, args, core }) => {
  const { Tensor } = core;
  const device = core.device(args.device ?? 'cpu');
  const { rank, size: N } = group;
  const odd = rank === N - 1;
  const make = (n, dtype = 'f32') => Tensor.empty([n], { dtype, device });
  const variants = {
    none: () => group.allReduce(make(4), make(4), { tag: 'grads' }),
    // The stream that is joined only waits for the one of the call.
    side: () => {
      const side = device.createStream();
      const t = make(4);
      side.wait(device.stream.record());
      device.withStream(side, () => group.allReduce(t, t, { tag: 'side' }));
      device.stream.wait(side.record());
    },
    primitive: () => (odd ? group.allGather(make(4 * N), make(4)) : group.allReduce(make(4), make(4))),
    dtype: () => group.allGather(make(4 * N, odd ? 'i32' : 'f32'), make(4, odd ? 'i32' : 'f32'), { tag: 'weights' }),
    count: () => group.allReduce(make(odd ? 100_000 : 4), make(odd ? 100_000 : 4), { tag: 'grads' }),
    root: () => group.broadcast(make(4), odd ? 1 : 0),
    tag: () => group.allReduce(make(4), make(4), { tag: odd ? 'layer 2' : 'layer 1' }),
    scale: () => group.allReduce(make(4), make(4), { scale: odd ? 0.5 : 1 }),
    message: () =>
      odd ? group.recv(make(3), 0, { tag: 'm' }) : rank === 0 ? group.send(make(4), N - 1, { tag: 'm' }) : undefined,
    // A rank that waits for a message while the sender waits for it in a collective: no time-out is needed to see it.
    crossed: () => (odd ? group.recv(make(4), 0) : group.allReduce(make(4), make(4), { tag: 'grads' })),
    // An op of the stream fails, so the collective behind it is never called.
    skipped: () => {
      if (odd) core.embedding(Tensor.from([99], [1], { dtype: 'i32', device }), Tensor.empty([4, 8], { device }));
      group.allReduce(make(4), make(4), { tag: 'after the failure' });
    },
    abort: () => {
      if (odd) return void setTimeout(() => group.abort('the loss is not a number'), 100);
      group.allReduce(make(4), make(4));
    },
    leave: () => (odd ? group.destroy() : group.allReduce(make(4), make(4), { tag: 'without you' })),
  };
  // Two calls of a kind everybody makes: the ones that differ are the second.
  const common = () => (device.isCuda ? group.broadcast(make(1), 0) : group.barrier());
  common();
  await failureOf(device.stream); // of a group that cannot be opened, whose failure is that of the calls below, too
  variants[args.variant]();
  const started = Date.now();
  const first = await failureOf(device.stream);
  const waited = Date.now() - started;
  if (args.variant === 'abort' && odd) await new Promise((resolve) => setTimeout(resolve, 400));
  // Whatever a rank tries next ends with the same error: the failure is final, and everybody's.
  if (args.variant !== 'leave' || !odd) common();
  const next = await failureOf(device.stream);
  return { first, next, waited };
});
