// Several communicators at once: rows, columns and the world of a grid, on two streams, with waits at random.
const { main, random } = require('./rank.cjs');

main(async ({ group, args, core }) => {
  const { Tensor, device } = core;
  const place = device(args.device ?? 'cpu');
  const columns = 2;
  const row = await group.split(Math.floor(group.rank / columns), group.rank % columns);
  // Keys turn the order around.
  const column = await group.split(group.rank % columns, group.size - group.rank);
  const none = await group.split(group.rank === 0 ? undefined : 0);
  const wires = [place.createStream(), place.createStream()];
  const draw = random(5);
  const wrong = [];
  for (let step = 0; step < args.steps; step++) {
    const calls = [row, column, group].map((which) => {
      const t = Tensor.from([group.rank + 1, step], [2], { device: place });
      const wire = wires[Math.floor(draw() * 2)];
      wire.wait(place.defaultStream.record());
      place.withStream(wire, () => which.allReduce(t, t, { tag: `step ${step}` }));
      place.defaultStream.wait(wire.record());
      return t;
    });
    const sums = await Promise.all(calls.map((t) => t.numbers()));
    const ranks = Array.from({ length: group.size }, (_, r) => r);
    const sumOf = (member) => ranks.filter(member).reduce((sum, r) => sum + r + 1, 0);
    const want = [
      sumOf((r) => Math.floor(r / columns) === Math.floor(group.rank / columns)),
      sumOf((r) => r % columns === group.rank % columns),
      sumOf(() => true),
    ];
    sums.forEach(([sum, steps], i) => {
      if (sum !== want[i] || steps !== step * [row, column, group][i].size) wrong.push({ step, i, sum, steps });
    });
    for (const t of calls) t.dispose();
  }
  // Rooms of destroyed groups are used again: far more groups than there are rooms.
  let parts = 0;
  for (let i = 0; i < args.splits; i++) {
    const part = await group.split(i % 2 === 0 ? 0 : group.rank);
    const t = Tensor.from([1], [1], { device: place });
    part.allReduce(t, t);
    parts += (await t.item()) === part.size ? 1 : 0;
    t.dispose();
    part.destroy();
  }
  const roster = async (which) => (which ? await which.exchange(String(group.rank)) : []);
  return { wrong, parts, row: await roster(row), column: await roster(column), none: await roster(none) };
});
