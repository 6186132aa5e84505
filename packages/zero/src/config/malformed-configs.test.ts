/**
 * Every malformed config under test/golden/malformed-configs against the exact messages beside it.
 *
 * A `ds-*.jsonc` is a DeepSpeed config, a `train-*.jsonc` the config of `ds train`. The first line may set the number of ranks and the steps of the run.
 * DS_UPDATE_GOLDEN=1 rewrites the messages; read the difference before committing it.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from './config-error';
import { parseDeepSpeedConfig } from './deepspeed-config';
import { parseTrainConfig } from './train-config';

const folder = join(__dirname, '../../../../test/golden/malformed-configs');
const names = readdirSync(folder).filter((name) => name.endsWith('.jsonc'));

function parse(name: string, text: string): unknown {
  if (name.startsWith('train-')) return parseTrainConfig(text, { file: name });
  const world = Number(/^\/\/.*world=(\d+)/.exec(text)?.[1] ?? 1);
  const totalSteps = /^\/\/.*steps=(\d+)/.exec(text)?.[1];
  return parseDeepSpeedConfig(text, {
    world,
    file: name,
    totalSteps: totalSteps === undefined ? undefined : Number(totalSteps),
  });
}

function problemsOf(name: string, text: string): ConfigError {
  try {
    parse(name, text);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error(`${name} was accepted`);
}

describe('malformed configs', () => {
  it('are at least forty', () => {
    expect(names.length).toBeGreaterThanOrEqual(40);
  });

  it.each(names)('%s is refused with exactly its messages', (name) => {
    const error = problemsOf(name, readFileSync(join(folder, name), 'utf8'));
    const messages = `${error.problems.map((problem) => problem.message).join('\n')}\n`;
    const golden = join(folder, name.replace(/jsonc$/, 'txt'));
    if (process.env.DS_UPDATE_GOLDEN) writeFileSync(golden, messages);
    expect(messages).toBe(readFileSync(golden, 'utf8'));
    expect(error.code).toBe('CONFIG');
    for (const problem of error.problems) expect(error.message).toContain(problem.message);
  });
});
