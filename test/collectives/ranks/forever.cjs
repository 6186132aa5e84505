// Works until it is ended: collectives without pause on large tensors, or sleep.
const { core } = require('./rank.cjs');

async function main() {
  const [, , mode = 'work'] = process.argv;
  const group = await core.ProcessGroup.fromEnvironment();
  if (mode === 'polite') process.once('SIGINT', () => process.exit(0));
  if (mode === 'stubborn') for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => console.log(name));
  const device = core.device(process.env.DS_TEST_DEVICE ?? 'cpu');
  const t = core.Tensor.from(new Float32Array(1 << 18), [1 << 18], { device });
  // Should the test that it is for ever fail, it does not run on for ever.
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), 60_000).unref();
  console.log(`pid ${process.pid}`);
  while (mode === 'work') {
    for (let i = 0; i < 20; i++) group.allReduce(t, t, { tag: `round ${i}` });
    await device.stream.join();
  }
  setInterval(() => {}, 1000);
}

main().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
