/** ds export: a checkpoint becomes the folder that it was trained from, in any dtype, whole or not at all. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { packNumbers } from '@ds/core-native';
import { InferenceEngine } from '@ds/inference';
import { openModelFolder, type TensorData, writeSafetensors } from '@ds/io';
import { bloomConfigFromJson, exportedName } from '@ds/nn';
import { goldenPath, readGolden, readGoldenTensors } from '../../../../test/support/golden';
import { largestDifference } from '../../../../test/support/golden-bloom';
import { ds } from '../../test-support/ds';
import { aboutModel } from '../train/checkpoint-about';

const model = 'bloom-tiny';
const golden = readGolden(model);
const tensors = [...readGoldenTensors(model, 'model.safetensors')].map(([name, tensor]) => ({
  ...tensor,
  name: name.replace(/^transformer\./, ''),
}));
const config = bloomConfigFromJson(JSON.parse(readFileSync(goldenPath(model, 'config.json'), 'utf8')));

/** Writes a checkpoint as two ranks would: every parameter cut somewhere, one half in each file. */
function writeCheckpoint(run: string, extra: object): string {
  const folder = path.join(run, 'checkpoints', 'step-7');
  mkdirSync(folder, { recursive: true });
  const files = [0, 1].map((rank) => `states-0000${rank}-of-00002.safetensors`);
  files.forEach((file, rank) => {
    const pieces = new Map<string, TensorData>();
    for (const { name, values } of tensors) {
      const cut = Math.floor(values.length / 3);
      const [start, end] = rank === 0 ? [0, cut] : [cut, values.length];
      for (const state of ['fp32', 'exp_avg', 'exp_avg_sq'])
        pieces.set(`${name}@${start}/${state}`, {
          dtype: 'f32',
          shape: [end - start],
          bytes: new Uint8Array(values.slice(start, end).map((x) => (state === 'fp32' ? x : 9)).buffer),
        });
    }
    writeSafetensors(path.join(folder, file), pieces);
  });
  const manifest = {
    format: 'ds-checkpoint',
    version: 1,
    stepsTaken: 7,
    scheduler: { type: 'none', completedSteps: 7 },
    writer: { world: 2, stage: 3 },
    parameters: tensors.map(({ name, shape }) => ({ name, shape })),
    files,
    extra,
  };
  writeFileSync(path.join(folder, 'checkpoint.json'), JSON.stringify(manifest));
  writeFileSync(path.join(run, 'checkpoints', 'latest'), 'step-7');
  return folder;
}

describe('ds export', () => {
  let dir: string;
  let run: string;
  let out: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'ds-export-'));
    run = path.join(dir, 'run');
    out = path.join(dir, 'new', 'exported');
    writeCheckpoint(run, { ...aboutModel(config, goldenPath(model), run) });
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it('gives back the weights to the bit, under the names that transformers reads, with the tokenizer', async () => {
    const { stdout, exitCode } = await ds(['export', run, out, '--json']);
    expect({ exitCode, ...JSON.parse(stdout) }).toMatchObject({
      exitCode: 0,
      step: 7,
      parameters: golden.params,
      dtype: 'f32',
    });
    using folder = openModelFolder(out);
    expect(folder.config).toMatchObject({ model_type: 'bloom', torch_dtype: 'float32', hidden_size: 64 });
    for (const { name, values, shape } of tensors) {
      const stored = folder.weights.tensor(exportedName(name));
      expect(stored.shape).toEqual(shape);
      expect(Buffer.from(values.buffer).equals(stored.bytes)).toBe(true);
    }
    await using engine = await InferenceEngine.load(out);
    const { text, last_logits } = golden.prompts[0]!;
    expect(largestDifference(await engine.logits(text), last_logits)).toBeLessThan(1e-4);
  });

  it.each(['bf16', 'f16'] as const)('rounds to %s', async (dtype) => {
    const checkpoint = path.join(run, 'checkpoints', 'step-7');
    expect((await ds(['export', checkpoint, out, '--dtype', dtype, '--quiet'])).stderr).toBe('');
    using folder = openModelFolder(out);
    expect(folder.config.torch_dtype).toBe(dtype === 'bf16' ? 'bfloat16' : 'float16');
    for (const { name, values } of tensors) {
      const { bytes } = folder.weights.tensor(exportedName(name));
      expect(Buffer.from(packNumbers(dtype, values).buffer).equals(bytes)).toBe(true);
    }
  });

  it('replaces an older model only when told to', async () => {
    await ds(['export', run, out]);
    const refused = await ds(['export', run, out, '--dtype', 'bf16', '--json']);
    expect(JSON.parse(refused.stdout).error).toMatchObject({ code: 'IO' });
    expect((await ds(['export', run, out, '--dtype', 'bf16', '--overwrite'])).exitCode).toBe(0);
    using folder = openModelFolder(out);
    expect(folder.config.torch_dtype).toBe('bfloat16');
  });

  it('takes the model of a checkpoint that does not name it from the command line', async () => {
    writeCheckpoint(run, {});
    const refused = await ds(['export', run, out, '--json']);
    expect(refused.exitCode).toBe(2);
    expect(JSON.parse(refused.stdout).error).toMatchObject({
      code: 'CONFIG',
      message: expect.stringMatching(/--model/),
    });
    const words = ['export', run, out, '--model', goldenPath(model, 'config.json')];
    expect((await ds(words)).stderr).toMatch(/no tokenizer/);
    using folder = openModelFolder(out);
    expect(folder.hasTokenizer).toBe(false);
  });

  it.each([
    [['--model', 'bloom-560m'], 'CHECKPOINT', /293 parameters/],
    [['--tag', 'step-8'], 'CHECKPOINT', /step-8.*step-7/],
    [['--dtype', 'f64'], 'USAGE', /f32, bf16, f16/],
    [['--tokenizer', '/nowhere'], 'IO', /nowhere/],
  ])('with %j fails and writes nothing', async (words, code, message) => {
    const { stdout } = await ds(['export', run, out, ...words, '--json']);
    const { error } = JSON.parse(stdout);
    expect(error).toMatchObject({ code });
    expect(`${error.message} ${error.hint}`).toMatch(message);
    expect(existsSync(out)).toBe(false);
  });
});
