/** ds train: trains a model as a config file says. */

import type { TrainOverrides } from '@ds/zero';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { parseCount } from '../terminal/arguments';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';
import { TrainingDisplay } from '../train/display';
import { runTraining } from '../train/run-training';

interface TrainFlags extends OutputOptions {
  readonly model?: string;
  readonly data?: string;
  readonly steps?: number;
  readonly world?: number;
  readonly device?: string;
  readonly seed?: number;
  readonly output?: string;
  readonly resume?: boolean | string;
}

const help = `
CONFIG is JSON (comments and trailing commas are allowed):
  {
    "model": "bloom-560m",            // a folder, a config.json, a preset, or sizes in place
    "data": "corpus/",                // a folder, text files, a .bin/.idx prefix, or JSON with {"ids": [[...]]}
    "steps": 1000, "world": 2, "device": "cpu", "seed": 42, "output": "runs/train",
    "sequence_length": 512, "validation_split": 0.05, "eval_interval": 100, "checkpoint_interval": 500,
    "deepspeed": {                    // DeepSpeed's own JSON, or the path of one
      "train_batch_size": 16,
      "optimizer": { "type": "AdamW", "params": { "lr": 3e-4 } },
      "zero_optimization": { "stage": 3 }, "bf16": { "enabled": true }
    }
  }

Examples:
  $ ds train train.json
  $ ds train train.json --world 4 --steps 200 --output runs/second
  $ ds train train.json --resume              go on from the last checkpoint in the output folder
  $ ds train train.json --json > steps.jsonl  one line a step: step, loss, grad_norm, lr, tokens_per_second, ...

The output folder gets metrics.jsonl, checkpoints/, report.html and model/, a Hugging Face folder.
Ctrl-C (or a file named "stop" in the output folder) ends a run behind its step, with a checkpoint; a second one at once.
`;

export function register(program: Command): void {
  const command = program.command('train').description(summaryOf('train'));
  command
    .argument('<config>', 'the config file')
    .option('--model <model>', "over the config's")
    .option('--data <data>', "over the config's")
    .option('--steps <n>', "over the config's", parseCount)
    .option('-n, --world <n>', "ranks, over the config's", parseCount)
    .option('--device <name>', "cpu, or cuda for a GPU a rank; over the config's")
    .option('--seed <n>', "over the config's", parseCount)
    .option('-o, --output <folder>', "over the config's")
    .option('--resume [checkpoint]', 'go on from the last checkpoint, or from the one named')
    .option('--fresh', 'begin anew even where there is a checkpoint');
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((config: string, flags: TrainFlags & { fresh?: boolean }) => train(config, flags));
}

async function train(config: string, flags: TrainFlags & { fresh?: boolean }): Promise<void> {
  const output = outputOf(flags);
  const { model, data, steps, world, device, seed, output: folder } = flags;
  const resume = flags.fresh ? false : flags.resume;
  const overrides: TrainOverrides = { model, data, steps, world, device, seed, output: folder, resume };
  await showTraining(output, config, overrides);
}

/** Runs a training and shows it on the terminal, or as JSON. */
async function showTraining(output: Output, config: string, overrides: TrainOverrides): Promise<void> {
  const display = new TrainingDisplay(output);
  try {
    const end = await runTraining({
      config,
      overrides,
      onReady: (run) => display.ready(run),
      onRecord: (record) => {
        if (record.type === 'step') {
          const { type: _, ...line } = record;
          output.line(line);
        }
        display.add(record);
      },
      onNote: (text) => display.note(text),
    });
    display.end(end);
  } finally {
    display.stop();
  }
}
