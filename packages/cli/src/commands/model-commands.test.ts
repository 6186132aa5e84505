/** ds generate, logits and tokenize: the JSON that scripts rely on, the text that people see, and what is refused. */
import { readFileSync } from 'node:fs';
import { liveTensors } from '@ds/core-native';
import { goldenModels, goldenPath, readGolden } from '../../../../test/support/golden';
import { largestDifference } from '../../../../test/support/golden-bloom';
import { denseFamilies, familyPath, readFamilyGolden } from '../../../../test/support/golden-families';
import { ds } from '../../test-support/ds';

// The addon counts for the whole process, and other test files may have run in it.
const liveBefore = liveTensors();

const folder = goldenPath('bloom-tiny');
const { prompts } = readGolden('bloom-tiny');
const { text: promptText, input_ids, greedy_ids, greedy_text, last_logits, loss } = prompts[0]!;
const ids = input_ids.join(',');

afterEach(() => expect(liveTensors()).toBe(liveBefore));

describe('ds generate', () => {
  it.each([
    ['--prompt', promptText, 'cpu'],
    ['--ids', ids, 'cpu'],
    ['--ids', ids, 'ref'],
  ])('%s %s on %s prints one JSON object', async (flag, prompt, device) => {
    const words = ['generate', folder, flag, prompt, '--max-new-tokens', '32', '--greedy', '--ignore-eos'];
    const { stdout, exitCode } = await ds([...words, '--device', device, '--json']);
    expect(exitCode).toBe(0);
    expect(stdout.trim().split('\n')).toHaveLength(1);
    expect(JSON.parse(stdout)).toMatchObject({
      prompt_ids: input_ids,
      ids: greedy_ids,
      text: greedy_text,
      tokens_per_second: expect.any(Number),
    });
  });

  it('draws the same with the same seed', async () => {
    const words = ['--temperature', '1.5', '--top-k', '50', '--top-p', '0.9', '--repetition-penalty', '1.1'];
    const drawn = async (seed: string) => {
      const all = ['generate', folder, '--ids', ids, ...words, '--max-new-tokens', '12', '--seed', seed, '--json'];
      return JSON.parse((await ds(all)).stdout);
    };
    const first = await drawn('4');
    expect(await drawn('4')).toMatchObject({ ids: first.ids, seed: 4 });
    expect((await drawn('5')).ids).not.toEqual(first.ids);
  });

  it('streams text to stdout and figures to stderr without --json', async () => {
    const words = ['generate', folder, '--prompt', promptText, '--max-new-tokens', '32'];
    const { stdout, stderr } = await ds(words);
    expect(stdout).toBe(`${greedy_text}\n`);
    expect(stderr).toMatch(/32 tokens in .* tokens\/s/);
    expect(await ds([...words, '--quiet'])).toMatchObject({ stdout: `${greedy_text}\n`, stderr: '' });
  });

  it.each([
    [['--ids', '5', '--prompt', 'a'], 2, 'CONFIG', /either --prompt TEXT or --ids/],
    [[], 2, 'CONFIG', /neither/],
    [['--ids', '5,x'], 2, 'USAGE', /--ids/],
    [['--ids', '5', '--greedy', '--top-p', '0.5'], 2, 'CONFIG', /greedy and topP/],
    [['--ids', '5', '--top-p', '2'], 2, 'CONFIG', /topP/],
    [['--ids', '512'], 2, 'CONFIG', /from 0 to 511/],
    [['--ids', '5', '--device', 'cuda:9'], 1, 'DEVICE', /cuda:9/],
    [['--ids', '5', '--dtype', 'int8'], 2, 'CONFIG', /dtype/],
    [['--ids', '5', '--weights', 'q5'], 2, 'CONFIG', /"q8" or "q4" for weights, got "q5"/],
    [['--ids', '5,6', '--context', '1'], 2, 'CONFIG', /a prompt of at most 1 tokens: the model reads 1, got 2/],
  ])('with %j fails with JSON and an exit code', async (words, code, name, message) => {
    const { stdout, exitCode } = await ds(['generate', folder, ...words, '--json']);
    expect(exitCode).toBe(code);
    expect(JSON.parse(stdout)).toEqual({
      error: { code: name, message: expect.stringMatching(message), hint: expect.any(String) },
    });
  });
});

describe.each(denseFamilies)('a folder of %s', (family) => {
  const { prompts } = readFamilyGolden(family);

  it('gives logits, loss and greedy tokens', async () => {
    const { input_ids, last_logits, loss, greedy_ids } = prompts[1]!;
    const words = [familyPath(family), '--ids', input_ids.join(','), '--json'];
    const printed = JSON.parse((await ds(['logits', ...words])).stdout);
    expect(largestDifference(printed.logits, last_logits)).toBeLessThan(1e-4);
    expect(Math.abs(printed.loss - loss!)).toBeLessThan(1e-5);
    const written = JSON.parse((await ds(['generate', ...words, '--max-new-tokens', '24', '--ignore-eos'])).stdout);
    expect(written.ids).toEqual(greedy_ids);
  });

  it('is packed as --weights says, and reads as much as --context says', async () => {
    const ids = prompts[1]!.input_ids.join(',');
    const words = ['logits', familyPath(family), '--ids', ids, '--weights', 'q8', '--context', '7', '--json'];
    const { logits } = JSON.parse((await ds(words)).stdout);
    const difference = largestDifference(logits, prompts[1]!.last_logits);
    expect(difference).toBeGreaterThan(1e-4);
    expect(difference).toBeLessThan(1);
  });
});

describe('ds logits', () => {
  it.each(['cpu', 'ref'])('on %s prints logits and loss', async (device) => {
    for (const model of goldenModels) {
      const [prompt] = readGolden(model).prompts;
      const words = ['logits', goldenPath(model), '--ids', prompt!.input_ids.join(','), '--device', device, '--json'];
      const printed = JSON.parse((await ds(words)).stdout);
      expect(Object.keys(printed)).toEqual(['logits', 'loss']);
      expect(largestDifference(printed.logits, prompt!.last_logits)).toBeLessThan(1e-4);
      expect(Math.abs(printed.loss - prompt!.loss)).toBeLessThan(1e-5);
    }
  });

  it('of a single token have no loss', async () => {
    const printed = JSON.parse((await ds(['logits', folder, '--ids', '5', '--json'])).stdout);
    expect(printed).toMatchObject({ loss: null, logits: { length: 512 } });
  });

  it('show people the most likely tokens', async () => {
    const { stdout } = await ds(['logits', folder, '--prompt', promptText]);
    expect(stdout).toContain(String(last_logits.indexOf(Math.max(...last_logits))));
    expect(stdout).toContain(loss.toFixed(4));
  });
});

describe('ds tokenize', () => {
  interface GoldenText {
    text: string;
    ids: number[];
    decoded: string;
  }
  const golden = readFileSync(goldenPath('bloom-tiny', 'tokenizer-golden.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as GoldenText);

  it('turns 300 strings into ids, lone surrogates and raw line separators included', async () => {
    const lines = golden.map(({ text }) => JSON.stringify(text));
    const { stdout, exitCode } = await ds(['tokenize', folder, '--json'], lines.join('\n'));
    expect(exitCode).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(golden.map(({ ids }) => ids));
    expect(golden.some(({ text }) => /[\ud800-\udfff](?![\udc00-\udfff])/.test(text))).toBe(true);
    const raw = await ds(['tokenize', folder, '--json'], '"a\u2028b"\r\n"c"\n');
    expect(raw.stdout.trimEnd().split('\n')).toHaveLength(2);
  });

  it('turns ids back into text', async () => {
    const { stdout } = await ds(
      ['tokenize', folder, '--json', '--decode'],
      golden.map(({ ids }) => JSON.stringify(ids)).join('\n'),
    );
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(golden.map(({ decoded }) => decoded));
  });

  it('takes plain text and plain ids without --json', async () => {
    expect((await ds(['tokenize', folder], promptText)).stdout).toBe(`${input_ids.join(' ')}\n`);
    expect((await ds(['tokenize', folder, '--decode'], `${ids}\n`)).stdout).toBe(promptText);
  });

  it.each([
    [['--json'], '"a"\n[1]\n', /line 2: expected a JSON string, got \[1\]/],
    [['--json'], '"a\n', /line 1: expected one JSON value/],
    [['--json'], '"a"\n\n"b"', /line 2/],
    [['--json', '--decode'], '[1, -1]', /line 1: expected a JSON array of ids/],
    [['--json', '--decode'], '"a"', /line 1: expected a JSON array of ids/],
  ])('%j refuses %j, naming the line', async (words, stdin, message) => {
    const { stdout, exitCode } = await ds(['tokenize', folder, ...words], stdin);
    expect(exitCode).toBe(1);
    expect(JSON.parse(stdout.trimEnd().split('\n').at(-1)!).error).toMatchObject({
      code: 'FORMAT',
      message: expect.stringMatching(message),
    });
  });
});
