// One rank of the equivalence tests: runs a list of small trainings one after the other and prints what came out, as JSON
// lines on rank 0. Starting processes costs more than training here, so one launch does a whole matrix.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { device, dtypeBytes, liveTensors, ProcessGroup } from '@ds/core-native';
import { Bloom, bloomPresets } from '@ds/nn';
import { initialize, loadCheckpoint, saveCheckpoint } from '@ds/zero';

const runs = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const group = await ProcessGroup.fromEnvironment();

/** Clears V8's garbage, which may lie for thousands of steps and is no leak. */
setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** Rows of a (step, micro-batch, rank): the same whatever else differs. */
function rowsOf(config, step, micro, rank) {
  const { T, vocabSize, B } = config;
  return Array.from({ length: B }, (_, b) => {
    let state = (((step * 31 + micro) * 31 + rank) * 31 + b + 1) >>> 0;
    return Int32Array.from({ length: T + 1 }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state % vocabSize;
    });
  });
}

/** A hash over all weights as they are gathered: every rank must see the same. */
async function hashWeights(engine) {
  const hash = createHash('sha256');
  for (let unit = 0; unit < engine.plan.units.length; unit++) {
    const { elements } = engine.plan.units[unit].layout;
    const bytes = await engine.withFullUnit(unit, (storage) => storage.fullParam.read());
    hash.update(new Uint8Array(bytes.buffer, 0, elements * dtypeBytes[engine.storages[unit].paramShard.dtype]));
  }
  return hash.digest('hex').slice(0, 16);
}

for (const run of runs) {
  const before = liveTensors();
  const place = device(run.device ?? 'cpu');
  place.resetPeak();
  const sizes = { T: 16, B: 2, vocabSize: 97, ...run.sizes };
  const model = new Bloom({
    ...bloomPresets['bloom-tiny'],
    hiddenSize: 32,
    heads: 4,
    layers: 2,
    ...run.model,
    vocabSize: sizes.vocabSize,
  });
  const engine = await initialize({
    model,
    group,
    device: place,
    decayGroups: run.decayGroups ?? 'all',
    config: {
      train_micro_batch_size_per_gpu: sizes.B,
      optimizer: { type: 'AdamW', params: { lr: 3e-3, weight_decay: 0.05 } },
      gradient_clipping: 0.5,
      seed: 11,
      ...run.config,
    },
  });
  const at0 = place.account().peak;
  if (run.load) await loadCheckpoint(engine, run.load.dir, run.load.tag);
  const losses = [];
  const norms = [];
  let bytesSent = 0;
  const resident = [];
  const first = engine.stepsTaken;
  for (let step = first; step < run.steps; step++) {
    let micro = 0;
    const report = await engine.trainBatch(() => ({ rows: rowsOf(sizes, step, micro++, group.rank) }));
    losses.push(report.loss);
    norms.push(report.gradNorm);
    bytesSent = report.bytesSent;
    if ((step + 1) % 100 === 0) {
      collectGarbage();
      resident.push(process.memoryUsage().rss, place.account().peak);
    }
  }
  if (run.save) await saveCheckpoint(engine, run.save.dir, run.save.tag, { step: engine.stepsTaken });
  const evaluation = await engine.evalBatch([{ rows: rowsOf(sizes, 1000, 0, group.rank) }]);
  const weights = await group.exchange(await hashWeights(engine));
  const result = {
    name: run.name,
    losses,
    norms,
    evaluation,
    weights: [...new Set(weights)],
    modelStateBytes: engine.modelStateBytes(),
    elements: engine.plan.units.reduce((sum, { layout }) => sum + layout.elements, 0),
    paddedElements: engine.plan.units.reduce((sum, { layout }) => sum + layout.paddedElements, 0),
    owners: place.account().owners,
    peak: place.account().peak,
    peakAtStart: at0,
    bytesSent,
    resident,
    planned: engine.plannedTraffic(),
  };
  engine[Symbol.dispose]();
  model[Symbol.dispose]();
  result.leaked = liveTensors() - before;
  const all = await group.exchange(
    JSON.stringify({ peak: result.peak, modelStateBytes: result.modelStateBytes, leaked: result.leaked }),
  );
  result.ranks = all.map((text) => JSON.parse(text));
  if (group.rank === 0) console.log(JSON.stringify(result));
}
group.destroy();
