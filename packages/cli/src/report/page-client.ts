/// <reference lib="dom" />
/**
 * What runs in the report's page. These functions are written into the page as their own source, so they use nothing but
 * each other, the page's data and uPlot.
 */
import type uPlot from 'uplot';

/** What the page is given. */
export interface PageData {
  readonly steps: readonly number[];
  readonly loss: readonly number[];
  readonly smoothLoss: readonly number[];
  readonly validation: readonly { readonly step: number; readonly loss: number }[];
  readonly lr: readonly number[];
  readonly gradNorm: readonly number[];
  readonly tokensPerSecond: readonly number[];
  readonly bytesSent: readonly number[];
  readonly plannedBytesSent: number;
  readonly memory: readonly PageTimeline[];
  readonly plannedTimeline: readonly number[];
}

/** One rank's memory through one step, by owner. */
export interface PageTimeline {
  readonly rank: number;
  readonly at: readonly string[];
  readonly owners: readonly { readonly name: string; readonly bytes: readonly number[] }[];
}

interface Line {
  readonly label: string;
  readonly values: readonly (number | null)[];
  /** What the legend says, where that is not what is drawn: one layer of a stack. */
  readonly told?: readonly number[];
  readonly color: string;
  readonly width?: number;
  readonly fill?: string;
  readonly dash?: number[];
  readonly points?: boolean;
}

interface ChartSpec {
  readonly into: string;
  readonly x: readonly number[];
  readonly lines: readonly Line[];
  readonly format: (value: number) => string;
  readonly formatX?: (value: number) => string;
  /** Places on the x axis to name, instead of round numbers. */
  readonly marks?: readonly { readonly at: number; readonly name: string }[];
  readonly fromZero?: boolean;
}

type Plotter = typeof uPlot;

/** Reads a colour of the page, which follows the reader's light or dark. */
export function cssColor(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace('e+', 'e').replace('.0e', 'e');
  return String(Number(value.toPrecision(3)));
}

export function shortBytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let rest = value;
  let unit = 0;
  while (Math.abs(rest) >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit++;
  }
  return `${Number(rest.toPrecision(3))} ${units[unit]}`;
}

/** Draws one chart as wide as its place, and again when the place changes. */
export function drawChart(spec: ChartSpec, Plot: Plotter): void {
  const place = document.getElementById(spec.into);
  if (!place || spec.x.length === 0) return;
  place.replaceChildren();
  const axis = { stroke: cssColor('--soft'), grid: { stroke: cssColor('--grid'), width: 1 }, ticks: { show: false } };
  const font = '12px system-ui, sans-serif';
  const plot = new Plot(
    {
      width: place.clientWidth,
      height: 240,
      cursor: { y: false, points: { size: 6 } },
      legend: { live: true },
      scales: {
        x: { time: false },
        y: spec.fromZero ? { range: (_, __, max) => [0, max > 0 ? max * 1.08 : 1] } : {},
      },
      axes: [
        { ...axis, font, size: 32, ...markedAxis(spec) },
        { ...axis, font, size: 64, values: (_, ticks) => ticks.map((tick) => spec.format(tick)) },
      ],
      series: [
        {
          label: spec.marks ? 'at' : 'step',
          value: (_, value) => (value === null ? '–' : (spec.formatX ?? String)(value)),
        },
        ...spec.lines.map((line) => ({
          label: line.label,
          stroke: line.color,
          width: line.width ?? 1.5,
          ...(line.fill ? { fill: line.fill } : {}),
          ...(line.dash ? { dash: line.dash } : {}),
          points: { show: line.points ?? false, size: 5, fill: line.color },
          spanGaps: true,
          value: (_: uPlot, value: number | null, __: number, i: number | null) =>
            value === null ? '–' : spec.format(line.told && i !== null ? line.told[i]! : value),
        })),
      ],
    },
    [spec.x, ...spec.lines.map(({ values }) => values)] as uPlot.AlignedData,
    place,
  );
  new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: 240 })).observe(place);
}

/** Names places on the x axis, or leaves round numbers to uPlot. */
export function markedAxis({ marks }: ChartSpec): uPlot.Axis {
  if (!marks) return { values: (_, ticks) => ticks.map(String) };
  const names = new Map(marks.map(({ at, name }) => [at, name]));
  return { splits: () => marks.map(({ at }) => at), values: (_, ticks) => ticks.map((tick) => names.get(tick) ?? '') };
}

/** Finds where forward, backward and update begin. */
export function phaseMarks(at: readonly string[]): { at: number; name: string }[] {
  return ['forward', 'backward', 'update']
    .map((name) => ({ name, at: at.findIndex((op) => op.startsWith(name)) }))
    .filter((mark) => mark.at >= 0);
}

/** Puts sparse points on the axis of the steps. */
export function onSteps(
  steps: readonly number[],
  points: readonly { step: number; loss: number }[],
): (number | null)[] {
  const at = new Map(points.map(({ step, loss }) => [step, loss]));
  return steps.map((step) => at.get(step) ?? null);
}

/** Stacks owners: the first line is the sum of all, the last one the lowest owner alone. */
export function stackOwners(timeline: PageTimeline): Line[] {
  const colors = ['--c1', '--c2', '--c3', '--c4', '--c5', '--c6', '--soft'];
  const sums: number[] = timeline.at.map(() => 0);
  const lines = timeline.owners.map(({ name, bytes }, i) => {
    bytes.forEach((value, k) => {
      sums[k]! += value;
    });
    const color = cssColor(colors[Math.min(i, colors.length - 1)]!);
    return { label: name, values: [...sums], told: bytes, color, fill: color, width: 0.5 };
  });
  return lines.reverse();
}

export function drawTraining(data: PageData, Plot: Plotter): void {
  const { steps } = data;
  const chart = (into: string, lines: Line[], format: (value: number) => string, fromZero = false) =>
    drawChart({ into, x: steps, lines, format, fromZero }, Plot);
  const validation = onSteps(steps, data.validation);
  chart(
    'loss',
    [
      { label: 'train', values: data.loss, color: cssColor('--faint'), width: 1 },
      { label: 'train, smooth', values: data.smoothLoss, color: cssColor('--c1'), width: 2 },
      { label: 'validation', values: validation, color: cssColor('--c2'), width: 2, points: true },
    ],
    shortNumber,
  );
  chart('lr', [{ label: 'learning rate', values: data.lr, color: cssColor('--c3'), width: 2 }], shortNumber, true);
  chart('grad-norm', [{ label: 'gradient norm', values: data.gradNorm, color: cssColor('--c4') }], shortNumber, true);
  chart('speed', [{ label: 'tokens/s', values: data.tokensPerSecond, color: cssColor('--c5') }], shortNumber, true);
  const planned = steps.map(() => data.plannedBytesSent);
  chart(
    'traffic',
    [
      { label: 'sent', values: data.bytesSent, color: cssColor('--c1'), width: 2 },
      { label: 'plan', values: planned, color: cssColor('--ink'), width: 1, dash: [6, 4] },
    ],
    shortBytes,
    true,
  );
}

export function drawMemory(data: PageData, Plot: Plotter): void {
  for (const timeline of data.memory) {
    const x = timeline.at.map((_, i) => i);
    const plan = { label: 'plan', values: data.plannedTimeline, color: cssColor('--ink'), width: 1, dash: [6, 4] };
    // One line a moment of the plan; of different lengths only when the run was another one than the planned.
    const lines = [...(data.plannedTimeline.length === x.length ? [plan] : []), ...stackOwners(timeline)];
    drawChart(
      {
        into: `memory-${timeline.rank}`,
        x,
        lines: [...lines.slice(1), ...lines.slice(0, 1)],
        format: shortBytes,
        formatX: (i) => timeline.at[i] ?? '',
        marks: phaseMarks(timeline.at),
        fromZero: true,
      },
      Plot,
    );
  }
}

/** Draws everything, and again when the reader changes between light and dark. */
export function drawPage(data: PageData, Plot: Plotter): void {
  const draw = () => {
    drawTraining(data, Plot);
    drawMemory(data, Plot);
  };
  draw();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}

/** Everything that the page needs, in one list to be written into it. */
export const clientFunctions = [
  cssColor,
  shortNumber,
  shortBytes,
  drawChart,
  markedAxis,
  phaseMarks,
  onSteps,
  stackOwners,
  drawTraining,
  drawMemory,
  drawPage,
] as const;
