/** The other end of process-side.mjs for programs of our own, as rivals/rival.py is for Python. */
import { createInterface } from 'node:readline';

/**
 * Answers requests until stdin ends.
 *
 * @param prepare async (spec) => ({ run(), outputs?(folder), facts?() }); `run` does one iteration and waits for its end
 */
export async function serve(prepare) {
  let body;
  const answer = async (request) => {
    if (request.prepare) {
      body = await prepare(request.prepare);
      return { ready: true };
    }
    if (request.run) {
      const start = performance.now();
      for (let i = 0; i < request.run; i++) await body.run();
      return { seconds: (performance.now() - start) / 1000 };
    }
    if (request.outputs) return { outputs: await body.outputs(request.outputs) };
    const peak = Math.round(process.resourceUsage().maxRSS / 1024);
    return { facts: { peak_rss_mb: peak, ...(await body.facts?.()) } };
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const said = await answer(JSON.parse(line)).catch((error) => ({ error: error.stack ?? String(error) }));
    process.stdout.write(`${JSON.stringify(said)}\n`);
  }
}
