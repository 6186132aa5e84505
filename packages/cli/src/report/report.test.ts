/** The report: what it takes from a run's lines, and a page that needs nothing but itself. */
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { RunRecord, StartRecord, StepRecord } from '../train/records';
import { renderPage, smoothed } from './page';
import { clientFunctions } from './page-client';
import { readRun } from './read-run';
import { writeReport } from './write-report';

const folder = mkdtempSync(path.join(tmpdir(), 'ds-report-'));
afterAll(() => rmSync(folder, { recursive: true }));

const start: StartRecord = {
  type: 'start',
  at: '2026-01-01T00:00:00.000Z',
  resumed_from: 0,
  steps: 3,
  parameters: 132_992,
  model: 'bloom-<tiny>',
  world: 2,
  stage: 3,
  param_dtype: 'bf16',
  grad_dtype: 'fp32',
  global_batch: 8,
  micro_batch: 4,
  accumulation: 1,
  sequence_length: 64,
  device: 'cpu',
  machine: 'a machine',
  planned: {
    model_state_bytes: 1_000_000,
    peak_bytes: 2_000_000,
    bytes_sent_per_step: 3000,
    timeline: [{ at: 'gather h.0', bytes: { parameters: 1, activations: 2 } }],
  },
};

const step = (n: number, loss: number): StepRecord => ({
  type: 'step',
  step: n,
  loss,
  grad_norm: 1,
  lr: 1e-3,
  tokens_per_second: 100,
  bytes_sent: 3000,
  model_state_bytes: 1_000_000,
  peak_bytes: 2_000_000,
  rank: 0,
  skipped: false,
  seconds: 2,
  ranks: [0, 1].map((rank) => ({
    rank,
    live_bytes: 1,
    peak_bytes: 2_000_000 + rank * 100_000,
    model_state_bytes: 1_000_000,
  })),
});

function writeRun(...records: RunRecord[]): void {
  writeFileSync(path.join(folder, 'metrics.jsonl'), records.map((record) => `${JSON.stringify(record)}\n`).join(''));
}

const sample: RunRecord = { type: 'sample', prompt: 'a </script>', text: ' & <b>', tokens_per_second: 9 };
const validation: RunRecord = { type: 'validation', step: 3, loss: 4.5, bits_per_byte: 2.25 };
const timeline: RunRecord = { type: 'timeline', step: 2, rank: 1, timeline: start.planned.timeline };

describe('a run', () => {
  it('that went over steps again counts with the later lines', () => {
    writeRun(start, step(1, 9), step(2, 8), step(3, 7), { ...start, resumed_from: 1 }, step(2, 6), step(3, 5));
    const { start: last, steps } = readRun(folder);
    expect(last.resumed_from).toBe(1);
    expect(steps.map((one) => [one.step, one.loss])).toEqual([
      [1, 9],
      [2, 6],
      [3, 5],
    ]);
  });

  it('may end in half a line, as a crash leaves it', () => {
    writeRun(start, step(1, 9));
    appendFileSync(path.join(folder, 'metrics.jsonl'), '{"type":"step","st');
    expect(readRun(folder).steps).toHaveLength(1);
  });

  it('with a broken line inside is refused by its number', () => {
    writeRun(start);
    appendFileSync(path.join(folder, 'metrics.jsonl'), '{"type":\n{}\n');
    expect(() => readRun(folder)).toThrow(/metrics\.jsonl:2: expected a JSON object/);
  });

  it('without a beginning is refused', () => {
    writeRun(step(1, 9));
    expect(() => readRun(folder)).toThrow('a line of type "start"');
  });
});

describe('the page', () => {
  const page = () => {
    writeRun(start, step(1, 9), step(2, 8), step(3, 7), timeline, validation, sample);
    return renderPage(readRun(folder));
  };

  it('needs nothing from anywhere', () => {
    expect(page()).not.toMatch(/<link|<img|src=|@import|url\(/);
  });

  it('shows figures against the plan', () => {
    const text = page();
    for (const part of ['3 of 3', '4.50', '2.25', 'bits per byte', '2.10 MB', 'peak a rank; plan 2.00 MB'])
      expect(text).toContain(part);
    expect(text).toContain('<td>rank 0</td><td>1.00 MB <span class="good">= plan</span></td>');
    expect(text).toContain('2.10 MB (+5.0 %)');
  });

  it('takes names and texts as texts, not as HTML', () => {
    const text = page();
    expect(text).toContain('<title>bloom-&lt;tiny&gt; ');
    expect(text).toContain('<b>a &lt;/script&gt;</b> &amp; &lt;b&gt;');
    const data = /id="data">(.*?)<\/script>/s.exec(text)![1]!;
    expect(JSON.parse(data)).toMatchObject({ steps: [1, 2, 3], loss: [9, 8, 7], memory: [{ rank: 1 }] });
  });

  it('brings every function that its script calls', () => {
    const source = clientFunctions.map(String).join('\n');
    const names = new Set(clientFunctions.map(({ name }) => name));
    for (const { name } of clientFunctions) expect(source).toContain(`function ${name}(`);
    // What a bundler or transform puts in place of a direct call would not be there in the page.
    expect(source).not.toMatch(/\b(exports|require|_[a-z]+\d*)\s*[.(]/);
    const define = new Function(`${source}\nreturn [${[...names].join(',')}]`);
    expect(define()).toHaveLength(names.size);
  });

  it('is written beside the metrics', () => {
    writeRun(start, step(1, 9));
    expect(writeReport(folder)).toBe(path.join(folder, 'report.html'));
  });
});

describe('smoothing', () => {
  it('begins at the first value and follows', () => {
    const [first, second] = smoothed([4, 2], 0.9);
    expect(first).toBeCloseTo(4, 12);
    expect(second).toBeCloseTo((0.09 * 4 + 0.1 * 2) / 0.19, 12);
  });
});
