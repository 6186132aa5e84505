/** Whenever the process is killed, the last complete checkpoint is there. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { CheckpointReader } from '@ds/zero';

/** Starts the saver, kills it `delayMs` after its second save, and gives the last step that it said was saved. */
function killWhileSaving(dir: string, tags: 'new' | 'same', delayMs: number): Promise<number> {
  const child = spawn(process.execPath, [path.join(__dirname, 'endless-save.rank.mjs'), dir, tags], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  let armed = false;
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    if (armed || output.split('saved').length < 3) return;
    armed = true;
    setTimeout(() => child.kill('SIGKILL'), delayMs);
  });
  return new Promise((resolve) => {
    child.on('close', () => {
      const steps = [...output.matchAll(/saved (\d+)\n/g)].map((match) => Number(match[1]));
      resolve(Math.max(...steps));
    });
  });
}

describe('a checkpoint folder whose writer is killed', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(path.join(tmpdir(), 'ds-killed-'));
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('still has the last complete checkpoint, 20 times of 20', async () => {
    for (let round = 0; round < 20; round++) {
      // From 0 to 38 ms: a save takes some ten milliseconds, so the kills fall everywhere in it.
      const said = await killWhileSaving(dir, round % 2 ? 'same' : 'new', round * 2);
      using reader = CheckpointReader.open(dir);
      const step = reader.manifest.extra.step as number;
      // The save that was under way may be complete without having been announced.
      expect(step === said || step === said + 1).toBe(true);
      for (const { name, shape } of reader.manifest.parameters) {
        const values = reader.read(
          name,
          'fp32',
          0,
          shape.reduce((a, b) => a * b, 1),
        );
        expect(values.every(Number.isFinite)).toBe(true);
      }
    }
    expect(readdirSync(dir).length).toBeGreaterThan(2);
  }, 120_000);
});
