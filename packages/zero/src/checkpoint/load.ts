/** Loads a checkpoint into an engine of any stage and world size: every rank reads the ranges it owns. */
import { DsError, keep } from '@ds/core-native';
import type { ZeroEngine } from '../engine/engine';
import { CheckpointReader } from './checkpoint-reader';
import { type CheckpointManifest, statesOf } from './layout';

/**
 * Puts weights, optimizer state and schedule back as they were saved. All ranks call it alike.
 *
 * @param tag default: the last complete one
 * @returns what the caller gave to `saveCheckpoint` as `extra`
 * @throws CHECKPOINT when there is none, or it belongs to another model or an optimizer with other states
 */
export async function loadCheckpoint(
  engine: ZeroEngine,
  dir: string,
  tag?: string,
): Promise<Readonly<Record<string, unknown>>> {
  using reader = CheckpointReader.open(dir, tag);
  expectSameModel(engine, reader.manifest, reader.path);
  expectSameStates(engine, reader);
  for (const storage of engine.storages) {
    const states = statesOf(storage);
    for (const { parameter, parameterStart, shardStart, count } of storage.optimizedRanges())
      for (const [state, tensor] of states) {
        using piece = keep(tensor.view([count], shardStart));
        piece.writeBytes(reader.read(parameter.name, state, parameterStart, count));
      }
    // What is queued holds what it writes: one unit at a time.
    await engine.device.defaultStream.join();
  }
  engine.scheduler.load(reader.manifest.scheduler as Parameters<typeof engine.scheduler.load>[0]);
  await engine.refreshWeights(reader.manifest.stepsTaken);
  return reader.manifest.extra;
}

function expectSameModel(engine: ZeroEngine, manifest: CheckpointManifest, where: string): void {
  const stored = new Map(manifest.parameters.map(({ name, shape }) => [name, shape]));
  const fail = (expected: string, actual: string): never => {
    throw new DsError({
      code: 'CHECKPOINT',
      op: where,
      expected,
      actual,
      hint: 'the checkpoint belongs to a model of another shape; check `model` in the config',
    });
  };
  const wanted = engine.plan.units.flatMap(({ layout }) => layout.places.map(({ parameter }) => parameter));
  for (const { name, shape } of wanted) {
    const found = stored.get(name);
    if (!found) fail(`the parameter ${name}`, `none of that name among ${stored.size}`);
    else if (found.join() !== shape.join()) fail(`${name} of shape [${shape.join(', ')}]`, `[${found.join(', ')}]`);
    stored.delete(name);
  }
  const [extra] = stored.keys();
  if (extra !== undefined) fail(`the ${wanted.length} parameters of this model`, `also ${extra}`);
}

function expectSameStates({ storages, config }: ZeroEngine, reader: CheckpointReader): void {
  const wanted = storages[0] ? statesOf(storages[0]).map(([name]) => name) : reader.states;
  if (wanted.join() === reader.states.join()) return;
  throw new DsError({
    code: 'CHECKPOINT',
    op: reader.path,
    expected: `the states of ${config.optimizer.type}: ${wanted.join(', ')}`,
    actual: reader.states.join(', '),
    hint: 'another optimizer saved them; go on with that one, or export the weights and start from those',
  });
}
