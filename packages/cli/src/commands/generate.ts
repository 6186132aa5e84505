/** ds generate: continues a prompt, token by token. */
import type { GenerateOptions, GenerationResult, InferenceEngine } from '@ds/inference';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { type EngineFlags, loadEngine, promptOf, withEngineOptions, withPromptOptions } from '../generate/load-engine';
import { parseCount, parsePositive } from '../terminal/arguments';
import { formatNumber, formatSeconds, plural } from '../terminal/format';
import { Interrupt } from '../terminal/interrupt';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

interface GenerateFlags extends EngineFlags, OutputOptions, Omit<GenerateOptions, 'stop' | 'signal'> {
  readonly stop?: readonly string[];
}

const help = `
DIR is a Hugging Face folder: config.json, model.safetensors (or shards), tokenizer.json.
Without --temperature, --top-k, --top-p or --seed the most likely token is taken each time.
Ctrl-C ends the text where it is.

Examples:
  $ ds generate runs/quickstart/model --prompt "export function"
  $ ds generate bloom-560m --prompt "The river" --temperature 0.8 --top-p 0.95 --seed 7
  $ ds generate bloom-560m --ids 5,6,7 --max-new-tokens 32 --json
`;

export function register(program: Command): void {
  const command = program.command('generate').description(summaryOf('generate'));
  withEngineOptions(withPromptOptions(command.argument('<dir>', 'a Hugging Face model folder')))
    .option('--max-new-tokens <n>', 'tokens to write at most (default: 128)', parseCount)
    .option('--greedy', 'take the most likely token each time')
    .option('--temperature <t>', 'draw: below 1 sharper, above 1 flatter', parsePositive)
    .option('--top-k <k>', 'draw from the k most likely tokens; 0: from all', parseCount)
    .option('--top-p <p>', 'draw from the fewest tokens that together have this probability', parsePositive)
    .option('--repetition-penalty <p>', 'above 1: tokens that occurred become less likely', parsePositive)
    .option('--seed <n>', 'makes a draw repeatable', parseCount)
    .option('--stop <texts...>', 'end before one of these texts')
    .option('--ignore-eos', 'go on behind the end-of-text token');
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((dir: string, flags: GenerateFlags) => generate(dir, flags));
}

async function generate(dir: string, flags: GenerateFlags): Promise<void> {
  const output = outputOf(flags);
  const prompt = promptOf('ds generate', flags);
  const ended = new AbortController();
  using interrupt = new Interrupt(() => ended.abort());
  await using engine = await loadEngine(dir, flags, output, ended.signal);
  const stream = engine.generate(prompt, { ...optionsOf(flags), signal: interrupt.signal });
  if (process.stdout.isTTY && typeof prompt === 'string') output.print(output.colors.dim(prompt));
  for await (const { text } of stream) {
    output.print(text);
    if (ended.signal.aborted) break;
  }
  const result = await stream.final();
  if (flags.json) output.result(resultFields(result), () => '');
  else output.print('\n');
  describe(output, result, engine);
}

/** The flags that are options of the generation, as given. */
function optionsOf(flags: GenerateFlags): GenerateOptions {
  const { maxNewTokens, greedy, temperature, topK, topP, repetitionPenalty, seed, stop, ignoreEos } = flags;
  const all = { maxNewTokens, greedy, temperature, topK, topP, repetitionPenalty, seed, stop, ignoreEos };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

function resultFields(result: GenerationResult): object {
  return {
    prompt_ids: result.promptIds,
    ids: result.ids,
    text: result.text,
    tokens_per_second: result.tokensPerSecond,
    finish_reason: result.finishReason,
    seed: result.seed ?? null,
    prompt_seconds: result.promptSeconds,
    seconds: result.seconds,
  };
}

function describe(output: Output, result: GenerationResult, engine: InferenceEngine): void {
  const { ids, promptIds, promptSeconds, seconds, tokensPerSecond, seed } = result;
  const facts = [
    `${plural(ids.length, 'token')} in ${formatSeconds(seconds)}`,
    `${formatNumber(tokensPerSecond)} tokens/s`,
    `${plural(promptIds.length, 'prompt token')} read in ${formatSeconds(promptSeconds)}`,
    ...(seed === undefined ? [] : [`seed ${seed}`]),
    ...(engine.tokenizer ? [] : [`no tokenizer.json; ids ${ids.join(',')}`]),
  ];
  output.note(output.noteColors.dim(facts.join(', ')));
}
