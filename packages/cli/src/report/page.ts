/** A run as one HTML page that needs nothing but itself: figures, charts, and the texts that the model wrote. */
import fs = require('node:fs');
import path = require('node:path');

import { formatBytes, formatCount, formatNumber, formatSeconds, plural } from '../terminal/format';
import type { MemoryMoment } from '../train/records';
import { clientFunctions, type PageData, type PageTimeline } from './page-client';
import { pageStyle } from './page-style';
import type { Run } from './read-run';

/** Most steps that are drawn; longer runs are thinned. */
const maxPoints = 4000;

/** Writes the page of a run. */
export function renderPage(run: Run): string {
  const { start } = run;
  const title = `${start.model} · ZeRO stage ${start.stage} on ${plural(start.world, 'rank')}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${uplotFile('uPlot.min.css')}${pageStyle}</style>
</head>
<body>
<main>
<h1>${escapeHtml(title)}</h1>
<p class="sub">${escapeHtml(subtitle(run))}</p>
<div class="tiles">${tiles(run).map(tile).join('')}</div>
<div class="grid">
${chartSection('loss', 'Loss', 'Mean over the global batch, before each step; validation on text that was held out.', 'wide')}
${chartSection('lr', 'Learning rate', 'As the schedule says.')}
${chartSection('grad-norm', 'Gradient norm', 'Over all parameters, before clipping.')}
${chartSection('speed', 'Speed', 'Tokens per second of all ranks together.')}
${chartSection('traffic', 'Traffic', 'Bytes that a rank sends in one step, against the plan.')}
${run.timelines.map(({ rank }) => memorySection(rank)).join('\n')}
${rankSection(run)}
${samplesSection(run)}
</div>
<footer>${escapeHtml(`${start.machine}. Begun ${start.at}.`)}</footer>
</main>
<script>${uplotFile('uPlot.iife.min.js')}</script>
<script type="application/json" id="data">${JSON.stringify(pageData(run)).replaceAll('<', '\\u003c')}</script>
<script>${clientFunctions.map(String).join('\n')}
drawPage(JSON.parse(document.getElementById('data').textContent), uPlot);</script>
</body>
</html>
`;
}

function uplotFile(name: string): string {
  return fs.readFileSync(path.join(path.dirname(require.resolve('uplot/package.json')), 'dist', name), 'utf8');
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

function subtitle({ start }: Run): string {
  const weights = start.param_dtype === 'fp32' ? 'fp32' : `${start.param_dtype} weights with an fp32 master copy`;
  const batch = `${plural(start.global_batch, 'sequence')} of ${start.sequence_length} tokens a step`;
  return `${formatCount(start.parameters)} parameters, ${weights}, ${batch}`;
}

interface Tile {
  readonly value: string;
  readonly label: string;
}

function tiles({ start, steps, validations, end }: Run): Tile[] {
  const last = steps.at(-1);
  const validation = validations.at(-1);
  const trained = end?.seconds ?? steps.reduce((sum, { seconds }) => sum + seconds, 0);
  const peak = Math.max(0, ...(last?.ranks ?? []).map(({ peak_bytes }) => peak_bytes));
  const speed = median(steps.map(({ tokens_per_second }) => tokens_per_second));
  return [
    { value: `${last?.step ?? 0} of ${start.steps}`, label: 'steps' },
    { value: last ? formatNumber(last.loss) : '–', label: 'training loss, last step' },
    ...(validation ? [{ value: formatNumber(validation.loss), label: 'validation loss' }] : []),
    ...(validation?.bits_per_byte ? [{ value: formatNumber(validation.bits_per_byte), label: 'bits per byte' }] : []),
    { value: formatCount(speed), label: 'tokens per second' },
    { value: formatSeconds(trained), label: end && end.reason !== 'stopped' ? 'of training' : 'so far' },
    { value: formatBytes(peak), label: `peak a rank; plan ${formatBytes(start.planned.peak_bytes)}` },
  ];
}

function tile({ value, label }: Tile): string {
  return `<div class="tile"><b>${escapeHtml(value)}</b><span>${escapeHtml(label)}</span></div>`;
}

function chartSection(id: string, title: string, note: string, style = ''): string {
  return `<section class="${style}"><h2>${title}</h2><p class="note">${note || '&nbsp;'}</p><div class="chart" id="${id}"></div></section>`;
}

function memorySection(rank: number): string {
  const note = 'One step, from the first gather to the last update; dashed: the plan.';
  return chartSection(`memory-${rank}`, `Memory of rank ${rank}`, note);
}

/** Every rank's figures beside the plan's. */
function rankSection({ start, steps }: Run): string {
  const last = steps.at(-1);
  if (!last) return '';
  const { planned } = start;
  const row = (name: string, cells: readonly string[]) =>
    `<tr><td>${name}</td>${cells.map((cell) => `<td>${cell}</td>`).join('')}</tr>`;
  const against = (bytes: number, plan: number) =>
    bytes === plan
      ? `${formatBytes(bytes)} <span class="good">= plan</span>`
      : `${formatBytes(bytes)} (${percent(bytes, plan)})`;
  const rows = last.ranks.map(({ rank, model_state_bytes, peak_bytes }) =>
    row(`rank ${rank}`, [
      against(model_state_bytes, planned.model_state_bytes),
      against(peak_bytes, planned.peak_bytes),
      rank === last.rank ? against(last.bytes_sent, planned.bytes_sent_per_step) : '',
    ]),
  );
  const plan = row(
    'plan',
    [planned.model_state_bytes, planned.peak_bytes, planned.bytes_sent_per_step].map(formatBytes),
  );
  return `<section class="wide"><h2>Plan and run</h2><p class="note">Per rank: weights, gradients and optimizer states; the most memory at any time; bytes sent in a step.</p>
<div class="scroll"><table class="figures"><tr><th></th><th>model states</th><th>peak</th><th>sent per step</th></tr>${plan}${rows.join('')}</table></div></section>`;
}

function percent(value: number, of: number): string {
  const change = (value / of - 1) * 100;
  return `${change >= 0 ? '+' : ''}${change.toFixed(1)} %`;
}

function samplesSection({ samples }: Run): string {
  if (samples.length === 0) return '';
  const texts = samples.map(({ prompt, text }) => `<pre><b>${escapeHtml(prompt)}</b>${escapeHtml(text)}</pre>`);
  return `<section class="wide"><h2>What it writes</h2><p class="note">The prompt in colour, then the model.</p>${texts.join('')}</section>`;
}

function pageData({ start, steps, validations, timelines }: Run): PageData {
  const kept = thin(steps);
  const smooth = smoothed(steps.map(({ loss }) => loss));
  const smoothAt = new Map(steps.map(({ step }, i) => [step, smooth[i]!]));
  return {
    steps: kept.map(({ step }) => step),
    loss: kept.map(({ loss }) => loss),
    smoothLoss: kept.map(({ step }) => smoothAt.get(step)!),
    validation: validations.map(({ step, loss }) => ({ step, loss })),
    lr: kept.map(({ lr }) => lr),
    gradNorm: kept.map(({ grad_norm }) => grad_norm),
    tokensPerSecond: kept.map(({ tokens_per_second }) => tokens_per_second),
    bytesSent: kept.map(({ bytes_sent }) => bytes_sent),
    plannedBytesSent: start.planned.bytes_sent_per_step,
    memory: timelines.map(({ rank, timeline }) => pageTimeline(rank, timeline)),
    plannedTimeline: start.planned.timeline.map(({ bytes }) => sumOf(bytes)),
  };
}

/** Owners that stay come first, so that what comes and goes is drawn on top of them. */
const ownerOrder = [
  'parameters',
  'optimizer states',
  'gradients',
  'gathered parameters',
  'gradient buffers',
  'activations',
];

function pageTimeline(rank: number, timeline: readonly MemoryMoment[]): PageTimeline {
  const names = [...new Set(timeline.flatMap(({ bytes }) => Object.keys(bytes)))].filter((name) =>
    timeline.some(({ bytes }) => (bytes[name] ?? 0) > 0),
  );
  const place = (name: string) => (ownerOrder.includes(name) ? ownerOrder.indexOf(name) : ownerOrder.length);
  names.sort((a, b) => place(a) - place(b));
  const owners = names.map((name) => ({ name, bytes: timeline.map(({ bytes }) => bytes[name] ?? 0) }));
  return { rank, at: timeline.map(({ at }) => at), owners };
}

function sumOf(bytes: Readonly<Record<string, number>>): number {
  return Object.values(bytes).reduce((sum, value) => sum + value, 0);
}

/** Keeps every k-th step, and the last. */
function thin<T>(items: readonly T[]): readonly T[] {
  const every = Math.ceil(items.length / maxPoints);
  return every <= 1 ? items : items.filter((_, i) => i % every === 0 || i === items.length - 1);
}

/** Exponential mean with a memory of about 10 steps, without the pull of its start. */
export function smoothed(values: readonly number[], decay = 0.9): number[] {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    mean = decay * mean + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return mean / weight;
  });
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}
