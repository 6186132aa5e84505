/** ds quickstart, which is `npm start`: trains a small BLOOM with ZeRO here and now, and lets it write. */
import fs = require('node:fs');

import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { stepsThatFit } from '../quickstart/calibrate';
import { completePrompts } from '../quickstart/complete';
import { quickstartModel, recipeFile, writeRecipe } from '../quickstart/recipe';
import { prepareQuickstartText } from '../quickstart/text';
import { type Run, readRun } from '../report/read-run';
import { reportFile, writeReport } from '../report/write-report';
import { parsePositive } from '../terminal/arguments';
import { formatBytes, formatCount, formatNumber } from '../terminal/format';
import { Interrupt } from '../terminal/interrupt';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';
import { TrainingDisplay } from '../train/display';
import { MetricsFile } from '../train/metrics-file';
import { checkpointsFolder, hasCheckpoint, modelFolder } from '../train/places';
import type { SampleRecord } from '../train/records';
import { runTraining } from '../train/run-training';

interface QuickstartFlags extends OutputOptions {
  readonly minutes?: number;
  readonly fresh?: boolean;
  readonly output: string;
}

const defaultMinutes = 3;
/** A machine that slows down ends a little late, not half an hour. */
const patience = 1.2;

const help = `
The text is what every machine has after npm install: type declarations and Markdown of node_modules. The model is a BLOOM of
4 M parameters, trained with ZeRO stage 3 on 2 ranks, in bf16 with an fp32 master copy. Ctrl-C ends with a checkpoint; the same command
goes on from there.

Examples:
  $ npm start
  $ npm start -- --minutes 10 --fresh
`;

export function register(program: Command): void {
  const command = program.command('quickstart').description(summaryOf('quickstart'));
  command
    .option('--minutes <n>', `how long to train (default: ${defaultMinutes})`, parsePositive)
    .option('--fresh', 'start over')
    .option('-o, --output <folder>', 'where to keep it', 'runs/quickstart');
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((flags: QuickstartFlags) => quickstart(flags));
}

async function quickstart(flags: QuickstartFlags): Promise<void> {
  const output = outputOf(flags);
  const folder = flags.output;
  if (flags.fresh) startOver(folder);
  if (isTrained(folder)) output.note(`${modelFolder(folder)} is trained already; npm start -- --fresh starts over`);
  else if (!(await train(flags, output))) return;
  const samples = await complete(folder, output);
  if (!samples) return;
  const report = writeReport(folder);
  const run = readRun(folder);
  output.result(toJson(folder, report, run), () => summary(folder, run, flags, output));
}

/** Removes what was trained; the prepared text is kept. */
function startOver(folder: string): void {
  const files = [recipeFile(folder), checkpointsFolder(folder), modelFolder(folder), `${folder}/metrics.jsonl`];
  for (const file of [...files, `${folder}/${reportFile}`]) fs.rmSync(file, { recursive: true, force: true });
}

function isTrained(folder: string): boolean {
  return fs.existsSync(modelFolder(folder)) && fs.existsSync(recipeFile(folder));
}

/** Trains, or goes on. @returns whether it came to its end */
async function train(flags: QuickstartFlags, output: Output): Promise<boolean> {
  const { minutes = defaultMinutes, output: folder } = flags;
  const { bold } = output.noteColors;
  const text = prepareQuickstartText(folder, quickstartModel.vocabSize, (stage) => output.note(`${stage} ...`));
  output.note(`${bold('text')}: ${formatCount(text.documents)} files of node_modules, .d.ts and .md`);
  const resuming = hasCheckpoint(folder) && fs.existsSync(recipeFile(folder));
  if (resuming) output.note('going on with the run that is there; npm start -- --fresh starts over');
  else {
    output.note('measuring a few steps ...');
    const steps = await stepsThatFit(minutes, { output: folder, text }, (note) => output.note(note));
    if (steps === null) {
      startOver(folder);
      return false;
    }
    writeRecipe({ output: folder, text, steps });
  }
  const display = new TrainingDisplay(output);
  try {
    const end = await runTraining({
      config: recipeFile(folder),
      deadlineMs: Date.now() + minutes * 60_000 * patience,
      onReady: (run) => display.ready(run),
      onRecord: (record) => display.add(record),
      onNote: (note) => display.note(note),
    });
    display.end(end);
    if (end.reason === 'stopped') output.note('npm start goes on, npm start -- --fresh starts over');
    return end.reason !== 'stopped';
  } finally {
    display.stop();
  }
}

/** Lets the model write, on the screen and into the metrics. @returns undefined when somebody stopped it */
async function complete(folder: string, output: Output): Promise<readonly SampleRecord[] | undefined> {
  const stopped = new AbortController();
  using _interrupt = new Interrupt(() => stopped.abort());
  const { bold } = output.colors;
  output.note(`\nloading ${modelFolder(folder)}; it continues three prompts:`);
  try {
    const samples = await completePrompts({
      folder: modelFolder(folder),
      signal: stopped.signal,
      onPrompt: (prompt) => output.print(`\n\n${bold(prompt)}`),
      onText: (text) => output.print(text),
    });
    output.print('\n\n');
    using metrics = new MetricsFile(folder, 'continue');
    for (const sample of samples) metrics.add(sample);
    return samples;
  } catch (error) {
    if (!stopped.signal.aborted) throw error;
    output.note('\nstopped');
    return undefined;
  }
}

function toJson(folder: string, report: string, { start, steps, validations, samples }: Run): object {
  const last = steps.at(-1);
  const validation = validations.at(-1);
  return {
    output: folder,
    model: modelFolder(folder),
    report,
    steps: last?.step ?? 0,
    parameters: start.parameters,
    loss: last?.loss ?? null,
    validation_loss: validation?.loss ?? null,
    bits_per_byte: validation?.bits_per_byte ?? null,
    samples: samples.map(({ prompt, text }) => ({ prompt, text })),
  };
}

/** The closing words: how good it is, what it took, and what to type next. */
function summary(folder: string, run: Run, { minutes = defaultMinutes }: QuickstartFlags, output: Output): string {
  const { bold, cyan, dim } = output.colors;
  const { start, steps, validations } = run;
  const validation = validations.at(-1);
  const last = steps.at(-1)!;
  const peak = Math.max(...last.ranks.map(({ peak_bytes }) => peak_bytes));
  const next = [
    [`npx ds generate ${folder}/model --prompt "import"`, 'let it write on'],
    [`npm start -- --fresh --minutes ${Math.ceil(minutes * 3)}`, 'let it learn longer'],
    [`npx ds train ${recipeFile(folder)} --fresh --world 1`, 'the same by its config, which is yours to change'],
    ['npx ds plan --model bloom-7b1 --world 8 --stage 3', 'what a larger one would need'],
  ] as const;
  const width = Math.max(...next.map(([command]) => command.length));
  return [
    `${bold('validation loss')}  ${validation ? formatNumber(validation.loss) : '?'} nats a token, ` +
      `${validation?.bits_per_byte ? formatNumber(validation.bits_per_byte) : '?'} bits a byte`,
    `${bold('memory a rank')}    ${formatBytes(peak)} at most, ${formatBytes(start.planned.peak_bytes)} planned`,
    `${bold('sent a step')}      ${formatBytes(last.bytes_sent)}, ${formatBytes(start.planned.bytes_sent_per_step)} planned`,
    `${bold('report')}           ${folder}/${reportFile}`,
    '',
    'Next:',
    ...next.map(([command, what]) => `  ${cyan(command.padEnd(width))}  ${dim(what)}`),
  ].join('\n');
}
