// A launcher as a process of its own, for the tests that end it.
const { core } = require('./rank.cjs');

const [, , script, world, ...args] = process.argv;
core
  .launch({ script, world: Number(world), args, threadsPerRank: 1, graceMs: 500 })
  .then((result) => console.log(JSON.stringify({ result })))
  .catch((error) => {
    console.log(JSON.stringify({ code: error.code, message: error.message }));
    process.exitCode = 1;
  });
