/** ds quickstart from its first step to its report, in a few seconds: stopped, gone on with, ended, and not done twice. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadTrainConfig } from '@ds/zero';
import { spawnDs } from '../../test-support/spawn-ds';
import { readRun } from '../report/read-run';
import { quickstartPrompts } from './complete';
import { recipeFile, writeRecipe } from './recipe';
import { findNodeModules } from './text';

const folder = mkdtempSync(path.join(tmpdir(), 'ds-quickstart-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A project with a little text in its node_modules, where the command is run. */
function makeProject(): string {
  const project = path.join(folder, 'project');
  for (let i = 0; i < 150; i++) {
    const at = path.join(project, 'node_modules', `package-${i}`);
    mkdirSync(at, { recursive: true });
    const members = Array.from({ length: 30 }, (_, k) => `  member${(i * 7 + k) % 40}: Type${(i + k * 3) % 25};\n`);
    writeFileSync(path.join(at, 'index.d.ts'), `export interface Package${i} {\n${members.join('')}}\n`);
  }
  return project;
}

describe('ds quickstart', () => {
  it('stops in order, goes on, writes a model, texts and a report, and does nothing twice', async () => {
    const cwd = makeProject();
    const output = path.join(cwd, 'runs', 'quickstart');
    const run = (...args: string[]) => spawnDs(['quickstart', '--minutes', '0.04', '--json', ...args], { cwd });

    const stopped = spawnDs(['quickstart', '--minutes', '0.04', '--json'], {
      cwd,
      onErrorLine: (line, pid) => {
        if (line.startsWith('training: step 0/')) process.kill(pid, 'SIGINT');
      },
    });
    expect(await stopped).toMatchObject({ exitCode: 0, stdout: '' });
    expect((await stopped).stderr).toContain('npm start goes on, npm start -- --fresh starts over');
    expect(existsSync(path.join(output, 'checkpoints', 'latest'))).toBe(true);

    const first = await run();
    expect([first.exitCode, first.stderr]).toEqual([0, expect.stringContaining('going on behind step')]);
    const result = JSON.parse(first.stdout);
    expect(result).toMatchObject({ validation_loss: expect.any(Number), bits_per_byte: expect.any(Number) });
    expect(result.samples.map(({ prompt }: { prompt: string }) => prompt)).toEqual(quickstartPrompts);
    for (const name of ['config.json', 'model.safetensors', 'tokenizer.json', 'generation_config.json'])
      expect(existsSync(path.join(output, 'model', name))).toBe(true);
    const report = readFileSync(path.join(output, 'report.html'), 'utf8');
    expect(report).toContain('ZeRO stage 3 on 2 ranks');
    const { start, steps, samples } = readRun(output);
    expect(start).toMatchObject({ world: 2, stage: 3, param_dtype: 'bf16', grad_dtype: 'fp32' });
    expect(steps.map(({ step }) => step)).toEqual(steps.map((_, i) => i + 1));
    // How many steps fit into the time is the machine's matter, and with them how much is learned.
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss - (steps.length >= 100 ? 0.5 : 0));
    expect(samples).toHaveLength(3);

    const second = await run();
    expect([second.exitCode, JSON.parse(second.stdout).steps]).toEqual([0, result.steps]);
    expect(second.stderr).toContain('npm start -- --fresh starts over');
    expect(second.stderr).not.toContain('training:');
  });

  it('finds the text of the nearest node_modules, or says that there is none', () => {
    const project = path.join(folder, 'nested');
    mkdirSync(path.join(project, 'node_modules'), { recursive: true });
    mkdirSync(path.join(project, 'a', 'b'), { recursive: true });
    expect(findNodeModules([path.join(project, 'a', 'b')])).toBe(path.join(project, 'node_modules'));
    expect(() => findNodeModules(['/'])).toThrow('Run npm install first');
  });

  it('writes a config that ds train takes as it is', () => {
    const output = path.join(folder, 'recipe');
    const text = { prefix: 'data/text', trainDocuments: 98, documents: 100, tokenizerFolder: 'data/tokenizer' };
    expect(writeRecipe({ output, text, steps: 1000 })).toBe(recipeFile(output));
    expect(loadTrainConfig(recipeFile(output))).toMatchObject({
      model: 'bloom-quickstart',
      validationSplit: 0.02,
      resume: 'auto',
      world: 2,
      deepspeed: { paramDtype: 'bf16', gradDtype: 'fp32', zero: { stage: 3 }, gradientClipping: 1 },
    });
    // Few steps make a config, too.
    writeRecipe({ output, text, steps: 1 });
    expect(loadTrainConfig(recipeFile(output)).evalInterval).toBe(1);
  });
});
