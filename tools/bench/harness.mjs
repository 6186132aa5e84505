/**
 * Measures one bench: proves equality, warms up, then runs ours and the rival in turns, with the roofline in between.
 * README.md in this folder says what a bench is.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { watchOthers } from './machine.mjs';
import { digits, median, quantile } from './statistics.mjs';

/** A sample shorter than this would measure the clock and the hand-over. */
const SAMPLE_SECONDS = 0.1;
const MOST_SAMPLES = 15;
const FEWEST_SAMPLES = 5;
/** Thread pools of rivals spin for a while after their work: they must not do so during ours. */
const SETTLE_MS = 50;
const DEFAULT_LIMITS = ['read', 'stream_copy', 'triad'];
const LARGEST_ARRAY = 2 ** 26;
/** How many arrays of the same length each limit walks over; see measureRoofline. */
const ARRAYS = { memcpy: 2, stream_copy: 2, read: 1, triad: 3, adam_mix: 4 };

/** Runs a side and gives seconds an iteration; a side in its own process brings its own time. */
async function time(side, iterations) {
  const start = performance.now();
  const own = await side.run(iterations);
  return (own ?? (performance.now() - start) / 1000) / iterations;
}

/** Warms a side up and finds how many iterations make one sample. */
async function calibrate(side) {
  let seconds = await time(side, 1);
  seconds = await time(side, 1);
  const iterations = Math.max(1, Math.ceil(SAMPLE_SECONDS / seconds));
  return { side, iterations, seconds: iterations > 1 ? await time(side, iterations) : seconds, samples: [] };
}

/**
 * Gives the least seconds that the CPU needs for the bench's bytes and operations, measured now.
 *
 * @param core the module @ds/core-native
 */
function cpuSeconds(core, { bytes = 0, flops = 0, limits = DEFAULT_LIMITS, footprintBytes = bytes }) {
  const repeats = 3;
  const moved = limits.map((kind) => {
    const elements = Math.max(1024, Math.min(LARGEST_ARRAY, Math.floor(footprintBytes / 4 / ARRAYS[kind])));
    return bytes === 0 ? 0 : bytes / core.measureRoofline(kind, { elements, repeats });
  });
  const computed = flops === 0 ? 0 : flops / core.measureRoofline('fma', { elements: 2 ** 18, repeats });
  // The fastest of the limits is the machine's; of moving and computing the slower one binds.
  return Math.max(Math.min(...moved), computed);
}

/** Runs both sides in turns, the order changing every round, so that a slow minute hits both. */
async function alternate(sides, { fixedSamples, measureRoofline }) {
  const slowest = Math.max(...sides.map(({ seconds, iterations }) => seconds * iterations));
  const rounds = fixedSamples ?? Math.max(FEWEST_SAMPLES, Math.min(MOST_SAMPLES, Math.round(6 / slowest)));
  const rooflines = [];
  for (let round = 0; round < rounds; round++) {
    for (const measured of round % 2 === 0 ? sides : [...sides].reverse()) {
      await sleep(SETTLE_MS);
      measured.samples.push(await time(measured.side, measured.iterations));
    }
    const limit = await measureRoofline?.();
    if (limit > 0) rooflines.push(limit);
  }
  return rooflines;
}

/** Turns seconds into the bench's unit: milliseconds, or so much of something a second. */
function inUnit(bench, seconds) {
  return bench.amount === undefined ? seconds * 1000 : bench.amount / seconds;
}

function spreadOf(bench, samples) {
  const [a, b] = [quantile(samples, 0.1), quantile(samples, 0.9)].map((s) => digits(inUnit(bench, s)));
  return { p10: Math.min(a, b), p90: Math.max(a, b), samples: samples.length };
}

/**
 * Measures a bench and gives its row, without machine, commit and command.
 *
 * @param core the module @ds/core-native
 * @param options.samples number of samples a side; default: about six seconds' worth, 5 to 15
 * @param options.leastSeconds what the device needs at least for a bench's `roofline`; default: the CPU's
 * @throws Error when the results of the two sides are not equal; nothing has been timed then
 */
export async function measure(bench, core, { samples, leastSeconds = (roofline) => cpuSeconds(core, roofline) } = {}) {
  const isThere = (side) => side && !side.missing;
  let parts = [bench.ours, bench.rival].filter(isThere);
  try {
    for (const side of parts) await side.start?.();
    // A rival may only find out now that it cannot do this work.
    for (const side of parts.filter(({ missing }) => missing)) await side.stop?.();
    parts = parts.filter(isThere);
    const rival = parts[1];
    await bench.equal({ ours: bench.ours, rival });
    const others = watchOthers(parts.map((side) => side.pid).filter(Boolean));
    const sides = [];
    for (const side of parts) sides.push(await calibrate(side));
    const rooflines = await alternate(sides, {
      fixedSamples: samples,
      measureRoofline: bench.roofline && (() => leastSeconds(bench.roofline)),
    });
    const [ours, theirs] = sides.map((side) => median(side.samples));
    const facts = await Promise.all(parts.map((side) => side.facts?.()));
    return {
      name: bench.name,
      task: bench.task,
      ours: digits(inUnit(bench, ours)),
      rival: rival ? digits(inUnit(bench, theirs)) : null,
      rival_name: bench.rival ? (rival ? rival.name : `${bench.rival.name}: ${bench.rival.missing}`) : null,
      ratio: rival ? digits(theirs / ours) : null,
      unit: bench.unit ?? 'ms',
      spread: spreadOf(bench, sides[0].samples),
      rival_spread: rival ? spreadOf(bench, sides[1].samples) : null,
      roofline_share: rooflines.length > 0 ? digits(median(rooflines) / ours) : null,
      other_cpu: digits(others()),
      ...(facts[0] ? { ours_facts: facts[0] } : {}),
      ...(facts[1] ? { rival_facts: facts[1] } : {}),
    };
  } finally {
    for (const side of parts) await side.stop?.();
  }
}
