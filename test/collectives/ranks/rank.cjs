// What every rank program of these tests is made of: join the job, do something, report what came of it as one JSON line.
const path = require('node:path');

const core = require(path.resolve(__dirname, '../../../packages/core-native'));

/** Gives the fields of an error that all ranks must agree on. */
function errorFields(error) {
  return { code: error.code, op: error.op, expected: error.expected, actual: error.actual, message: error.message };
}

/** Runs `program` on this rank with what the test passed as JSON, and reports its result, or the error it failed with. */
async function main(program) {
  const args = JSON.parse(process.argv[2] ?? '{}');
  let result;
  try {
    // A list has one option a rank; with a device, its part of the group is opened with the rest.
    const transport = args.perRank?.[Number(process.env.RANK)];
    const options = transport === undefined ? args.options : { transport, device: args.device };
    const group = await core.ProcessGroup.fromEnvironment(options ?? {});
    result = { rank: group.rank, value: await program({ group, args, core }) };
  } catch (error) {
    if (!core.DsError.is(error)) throw error;
    result = { error: errorFields(error) };
  }
  console.log(JSON.stringify(result));
}

/** Waits for a device's stream and gives the error it failed with, if any. */
async function failureOf(stream) {
  try {
    await stream.join();
  } catch (error) {
    return errorFields(error);
  }
}

/** A small generator with a seed (mulberry32): every rank draws the same numbers. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

module.exports = { core, main, failureOf, random };
