/** ds export: writes the weights of a checkpoint as a Hugging Face folder. */
import fs = require('node:fs');
import path = require('node:path');

import { DsError, packNumbers } from '@ds/core-native';
import { ModelFolderWriter } from '@ds/io';
import { Bloom, exportedName } from '@ds/nn';
import { CheckpointReader } from '@ds/zero';
import { type Command, Option } from 'commander';
import { summaryOf } from '../catalog';
import { formatBytes, formatCount } from '../terminal/format';
import { type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';
import { startProgress } from '../terminal/progress';
import { readAbout } from '../train/checkpoint-about';
import { type ExportDtype, folderContent } from '../train/export-model';
import { findModel } from '../train/model';

interface ExportFlags extends OutputOptions {
  readonly dtype: ExportDtype;
  readonly model?: string;
  readonly tokenizer?: string;
  readonly tag?: string;
  readonly overwrite?: boolean;
}

/** Read, rounded and written at once. */
const pieceElements = 1 << 20;

const bytesOf = { f32: 4, bf16: 2, f16: 2 } as const;

const help = `
CHECKPOINT is the folder of a run, of its checkpoints (then the last one), or of one checkpoint.

Examples:
  $ ds export runs/train exported
  $ ds export runs/train/checkpoints/step-500 exported --dtype bf16
  $ ds generate exported --prompt "The river"
`;

export function register(program: Command): void {
  const command = program.command('export').description(summaryOf('export'));
  command
    .argument('<checkpoint>', 'a checkpoint, or the run that wrote it')
    .argument('<out>', 'the folder to write')
    .addOption(
      new Option('--dtype <dtype>', 'what the weights are rounded to').choices(Object.keys(bytesOf)).default('f32'),
    )
    .option('--model <model>', "config.json, folder or preset of the model, over the checkpoint's own")
    .option('--tokenizer <dir>', "folder of the tokenizer, over the run's own")
    .option('--tag <tag>', 'which of several checkpoints (default: the last)')
    .option('--overwrite', 'replace an older model in OUT');
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((checkpoint: string, out: string, flags: ExportFlags) => exportCheckpoint(checkpoint, out, flags));
}

function exportCheckpoint(checkpoint: string, out: string, flags: ExportFlags): void {
  const output = outputOf(flags);
  const { dtype } = flags;
  const inRun = path.join(checkpoint, 'checkpoints');
  using reader = CheckpointReader.open(fs.existsSync(inRun) ? inRun : checkpoint, flags.tag);
  const about = readAbout(reader.manifest.extra, reader.path);
  const config = flags.model === undefined ? about.config : findModel(flags.model).config;
  if (!config) throw unknownModel(reader.path);
  const { parameters } = new Bloom(config);
  checkParameters(reader, parameters);
  const tokenizerFolder = flags.tokenizer ?? about.tokenizerFolder ?? null;
  const elements = parameters.reduce((sum, { numel }) => sum + numel, 0);
  const progress = startProgress({ title: 'exporting', total: elements, unit: 'parameter', quiet: output.quiet });
  fs.mkdirSync(path.dirname(path.resolve(out)), { recursive: true });
  const content = folderContent(config, { dtype, parameters, tokenizerFolder });
  try {
    using writer = ModelFolderWriter.create(out, { ...content, overwrite: flags.overwrite ?? false });
    writeWeights(reader, writer, parameters, dtype, (done) => progress.update(done));
    writer.finish();
  } finally {
    progress.stop();
  }
  const { stepsTaken } = reader.manifest;
  const bytes = elements * bytesOf[dtype];
  output.result(
    { model: out, checkpoint: reader.path, step: stepsTaken, dtype, parameters: elements, bytes },
    () => out,
  );
  const what = `${formatCount(elements)} parameters of step ${stepsTaken} as ${dtype}, ${formatBytes(bytes)}`;
  output.note(tokenizerFolder === null ? `${what}; no tokenizer: name one with --tokenizer DIR` : what);
}

type Parameters = readonly { readonly name: string; readonly shape: readonly number[]; readonly numel: number }[];

function writeWeights(
  reader: CheckpointReader,
  writer: ModelFolderWriter,
  parameters: Parameters,
  dtype: ExportDtype,
  onDone: (elements: number) => void,
): void {
  let done = 0;
  for (const { name, numel } of parameters)
    for (let start = 0; start < numel; start += pieceElements) {
      const values = reader.read(name, 'fp32', start, Math.min(pieceElements, numel - start));
      const packed = packNumbers(dtype, values);
      writer.write(exportedName(name), new Uint8Array(packed.buffer), start * bytesOf[dtype]);
      done += values.length;
      onDone(done);
    }
}

/** The checkpoint must hold exactly the model's parameters. */
function checkParameters(reader: CheckpointReader, parameters: Parameters): void {
  const text = ({ name, shape }: { name: string; shape: readonly number[] }) => `${name} [${shape.join(', ')}]`;
  const wanted = new Set(parameters.map(text));
  const stored = new Set(reader.manifest.parameters.map(text));
  const missing = [...wanted].find((parameter) => !stored.has(parameter));
  const extra = [...stored].find((parameter) => !wanted.has(parameter));
  if (missing === undefined && extra === undefined) return;
  throw new DsError({
    code: 'CHECKPOINT',
    op: reader.path,
    expected: `the ${wanted.size} parameters of the model${missing === undefined ? '' : `, ${missing} among them`}`,
    actual: extra ?? 'none of that name and shape',
    hint: 'the checkpoint is of another model: name it with --model',
  });
}

function unknownModel(checkpoint: string): DsError {
  return new DsError({
    code: 'CONFIG',
    op: 'ds export',
    expected: '--model CONFIG_OR_FOLDER_OR_PRESET',
    actual: `a checkpoint that does not say of which model it is (${checkpoint})`,
    hint: 'Checkpoints of `ds train` say it; for others, name the config.json.',
  });
}
