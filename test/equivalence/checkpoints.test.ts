/** A checkpoint does not know how it was cut: what one world and stage saved, another goes on with. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CheckpointReader } from '@ds/zero';
import { launchRuns, type TrainingResult, type TrainingRun } from './launch-runs';

const worlds = [1, 2, 4] as const;
const stages = [0, 1, 2, 3] as const;
const config = (stage: number) => ({ bf16: { enabled: true }, zero_optimization: { stage } });
const model = { hiddenSize: 36, heads: 3, layers: 2 };

/** All states of all parameters, as one text that is equal exactly if they are. */
function contents(dir: string, tag: string): string {
  using reader = CheckpointReader.open(dir, tag);
  return reader.manifest.parameters
    .flatMap(({ name, shape }) =>
      reader.states.map((state) => {
        const values = reader.read(
          name,
          state,
          0,
          shape.reduce((a, b) => a * b, 1),
        );
        return `${name}/${state} ${Buffer.from(values.buffer).toString('base64')}`;
      }),
    )
    .join('\n');
}

describe('a checkpoint', () => {
  let dir: string;
  const results = new Map<number, TrainingResult[]>();
  const saved = (world: number, stage: number) => `saved-by-${world}-at-${stage}`;
  const again = (from: string, world: number, stage: number) => `${from}-resaved-by-${world}-at-${stage}`;

  beforeAll(async () => {
    dir = mkdtempSync(path.join(tmpdir(), 'ds-checkpoints-'));
    for (const world of worlds) {
      const save = (stage: number): TrainingRun => ({
        name: `save ${stage}`,
        steps: 10,
        model,
        config: config(stage),
        save: { dir, tag: saved(world, stage) },
      });
      await launchRuns(world, stages.map(save));
    }
    for (const world of worlds) {
      const runs = stages.flatMap((stage) => [
        { name: `unbroken ${stage}`, steps: 20, model, config: config(stage) },
        { name: `resumed ${stage}`, steps: 20, model, config: config(stage), load: { dir, tag: saved(world, stage) } },
        ...worlds.flatMap((from) =>
          stages.map((fromStage) => ({
            name: `load ${from} ${fromStage} at ${stage}`,
            // Saved again at once: nothing but loading and saving in between.
            steps: 10,
            model,
            config: config(stage),
            load: { dir, tag: saved(from, fromStage) },
            save: { dir, tag: again(saved(from, fromStage), world, stage) },
          })),
        ),
      ]);
      results.set(world, await launchRuns(world, runs));
    }
  }, 300_000);

  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('holds the same at every stage of a world', () => {
    for (const world of worlds) {
      const first = contents(dir, saved(world, 0));
      for (const stage of stages) expect(contents(dir, saved(world, stage)) === first).toBe(true);
    }
  });

  it.each(worlds)('is bitwise what it was, loaded by %i ranks at any stage', (world) => {
    for (const from of worlds)
      for (const fromStage of stages) {
        const before = contents(dir, saved(from, fromStage));
        for (const stage of stages) {
          const after = contents(dir, again(saved(from, fromStage), world, stage));
          expect(`${from} ${fromStage} ${stage}: ${after === before}`).toBe(`${from} ${fromStage} ${stage}: true`);
        }
      }
  });

  it.each(worlds)('continues as if nothing had happened: %i ranks', (world) => {
    const of = (name: string) => results.get(world)!.find((result) => result.name === name)!;
    for (const stage of stages) {
      expect(of(`resumed ${stage}`).losses).toEqual(of(`unbroken ${stage}`).losses.slice(10));
      expect(of(`resumed ${stage}`).weights).toEqual(of(`unbroken ${stage}`).weights);
    }
  });
});

describe.each(['Lamb', 'Lion'])('a checkpoint of %s', (type) => {
  const settings = (stage: number) => ({
    ...config(stage),
    optimizer: { type, params: { lr: 1e-3, weight_decay: 0.05 } },
  });
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'ds-checkpoints-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('goes on at another stage as if nothing had happened, and is bitwise what it was in another world', async () => {
    const common = { model, config: settings(3) };
    const [, unbroken] = await launchRuns(2, [
      { ...common, name: 'save', steps: 5, save: { dir, tag: 'first' } },
      { ...common, name: 'unbroken', steps: 10 },
    ]);
    const load = { dir, tag: 'first' };
    const resumed = await launchRuns(
      2,
      [0, 1].map((stage) => ({ name: 'resumed', steps: 10, model, config: settings(stage), load })),
    );
    for (const { losses, weights } of resumed) {
      expect(losses).toEqual(unbroken!.losses.slice(5));
      expect(weights).toEqual(unbroken!.weights);
    }
    const before = contents(dir, 'first');
    for (const [world, stage] of [
      [1, 0],
      [4, 1],
      [4, 3],
    ] as const) {
      const tag = `again-${world}-${stage}`;
      await launchRuns(world, [{ name: tag, steps: 5, model, config: settings(stage), load, save: { dir, tag } }]);
      expect(contents(dir, tag) === before).toBe(true);
    }
  }, 120_000);
});
