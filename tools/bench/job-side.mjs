/** A side that is a job: every sample starts it anew, and it says one line of JSON with its own `seconds` and results. */
import { spawnSync } from 'node:child_process';

/**
 * Makes a side of a job.
 *
 * @param start async (iterations) => what the job said: `{ seconds, peak_rss_mb?, … }`
 */
export function jobSide(name, start) {
  let last;
  return {
    name,
    async run(iterations) {
      last = await start(iterations);
      return last.seconds;
    },
    said: () => last,
    facts: async () => (last.peak_rss_mb === undefined ? undefined : { peak_rss_mb: last.peak_rss_mb }),
  };
}

/** A job of our own ranks, one thread each; its first rank says the line. `spec` goes to the program with the iterations. */
export function launchedSide(core, name, script, world, spec) {
  return jobSide(name, async (iterations) => {
    let said;
    await core.launch({
      world,
      script,
      args: [JSON.stringify({ ...spec, iterations })],
      threadsPerRank: 1,
      onLine: ({ text }) => {
        if (text.startsWith('{')) said = JSON.parse(text);
      },
    });
    return said;
  });
}

/** Runs a program to its end and gives the line of JSON that it said. @throws Error with the program's own words */
export function spawnedJob(name, program, args, env = {}) {
  const options = { encoding: 'utf8', maxBuffer: 1e8, env: { ...process.env, ...env } };
  const { stdout, stderr } = spawnSync(program, args, options);
  const line = stdout?.split('\n').find((text) => text.startsWith('{'));
  if (!line) throw new Error(`${name} gave no answer\n${stderr?.slice(-2000)}`);
  return JSON.parse(line);
}
