/** ds serve: answers over HTTP until SIGTERM, and says in one line why it does not start (S18). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { goldenPath, readGolden } from '../../../../test/support/golden';
import { ds } from '../../test-support/ds';
import { spawnDs } from '../../test-support/spawn-ds';

const folder = goldenPath('bloom-tiny');
const [golden] = readGolden('bloom-tiny').prompts;

it('serves the golden text, finishes a stream that runs at SIGTERM, and ends with 0', async () => {
  let text = '';
  let told: Record<string, unknown> = {};
  const { exitCode, stdout } = await spawnDs(
    ['serve', folder, '--port', '0', '--model-id', 'tiny', '--json', '--quiet'],
    {
      env: { DS_API_KEY: 'secret-key' },
      onLine: async (line, pid) => {
        told = JSON.parse(line);
        const response = await fetch(`${told.url}/v1/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: 'Bearer secret-key' },
          body: JSON.stringify({
            model: 'tiny',
            prompt: golden!.text,
            temperature: 0,
            ignore_eos: true,
            max_tokens: 32,
            stream: true,
          }),
        });
        process.kill(pid, 'SIGTERM');
        text = await response.text();
      },
    },
  );
  expect(exitCode).toBe(0);
  expect(stdout.trim().split('\n')).toHaveLength(1);
  expect(told).toEqual({
    url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
    model: 'tiny',
    context_tokens: expect.any(Number),
    chat: false,
    pid: expect.any(Number),
  });
  const events = text
    .trim()
    .split('\n\n')
    .map((block) => block.replace('data: ', ''));
  expect(events.at(-1)).toBe('[DONE]');
  const written = events
    .slice(0, -1)
    .map((event) => JSON.parse(event).choices[0].text)
    .join('');
  expect(written).toBe(golden!.greedy_text);
});

describe('S18: what keeps it from starting is one line and an exit code', () => {
  let taken: ReturnType<typeof createServer>;
  let port: string;
  let empty: string;
  beforeAll(async () => {
    empty = mkdtempSync(path.join(tmpdir(), 'ds-serve-'));
    writeFileSync(path.join(empty, 'keys.txt'), 'a key with spaces\n');
    taken = createServer();
    await new Promise<void>((done) => taken.listen(0, '127.0.0.1', done));
    port = String((taken.address() as AddressInfo).port);
  });
  afterAll(() => {
    taken.close();
    rmSync(empty, { recursive: true });
  });

  it.each([
    ['a port that is taken', () => [folder, '--port', port], 1, 'IO', /another program/],
    ['a port that is none', () => [folder, '--port', '70000'], 2, 'CONFIG', /65535/],
    ['a port that is no number', () => [folder, '--port', 'x'], 2, 'USAGE', /whole number/],
    [
      'an address of another machine',
      () => [folder, '--port', '0', '--host', '192.0.2.1', '--insecure'],
      1,
      'IO',
      /does not have/,
    ],
    ['an address for all without keys', () => [folder, '--port', '0', '--host', '0.0.0.0'], 2, 'CONFIG', /API key/],
    [
      'a file of keys that is not there',
      () => [folder, '--port', '0', '--api-key-file', path.join(empty, 'none')],
      1,
      'IO',
      /none/,
    ],
    [
      'a key with spaces',
      () => [folder, '--port', '0', '--api-key-file', path.join(empty, 'keys.txt')],
      2,
      'CONFIG',
      /printable/,
    ],
    ['no folder', () => ['--port', '0'], 2, 'USAGE', /dir/],
    ['a folder that is not there', () => [path.join(empty, 'none'), '--port', '0'], 1, 'IO', /find the folder/],
    ['a folder without a model', () => [empty, '--port', '0'], 1, 'IO', /config\.json/],
    ['a device that is not there', () => [folder, '--port', '0', '--device', 'cuda:9'], 1, 'DEVICE', /cuda:9/],
    ['a format that is none', () => [folder, '--port', '0', '--weights', 'q3'], 2, 'CONFIG', /weights/],
    ['a context of nothing', () => [folder, '--port', '0', '--context', '0'], 2, 'CONFIG', /contextTokens/],
    ['a flag that is none', () => [folder, '--prot', '0'], 2, 'USAGE', /--prot/],
  ] as [string, () => string[], number, string, RegExp][])('%s', async (_, words, exitCode, code, message) => {
    const told = await ds(['serve', ...words(), '--json']);
    expect(told.exitCode).toBe(exitCode);
    const lines = told.stdout.trim().split('\n');
    expect(lines).toHaveLength(1);
    const { error } = JSON.parse(lines[0]!);
    expect(error).toEqual({ code, message: expect.any(String), hint: expect.any(String) });
    expect(`${error.message} ${error.hint}`).toMatch(message);
  });
});
