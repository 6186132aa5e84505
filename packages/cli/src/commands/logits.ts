/** ds logits: the logits behind a sequence, and how well the model expected it. */
import type { InferenceEngine } from '@ds/inference';
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { type EngineFlags, loadEngine, promptOf, withEngineOptions, withPromptOptions } from '../generate/load-engine';
import { formatNumber } from '../terminal/format';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';
import { formatTable } from '../terminal/table';

type LogitsFlags = EngineFlags & OutputOptions;

/** Tokens shown to people. */
const shownTokens = 10;

const help = `
Examples:
  $ ds logits bloom-560m --ids 5,6,7 --json    {"logits": [...], "loss": ...}
  $ ds logits bloom-560m --prompt "The river"  the ten most likely next tokens

logits: f32, behind the last token. loss: mean over the tokens, each from those before it, in nats; null for one token.
`;

export function register(program: Command): void {
  const command = program.command('logits').description(summaryOf('logits'));
  withEngineOptions(withPromptOptions(command.argument('<dir>', 'a Hugging Face model folder')));
  withOutputOptions(command)
    .addHelpText('after', help)
    .action((dir: string, flags: LogitsFlags) => giveLogits(dir, flags));
}

async function giveLogits(dir: string, flags: LogitsFlags): Promise<void> {
  const output = outputOf(flags);
  const prompt = promptOf('ds logits', flags);
  await using engine = await loadEngine(dir, flags, output);
  const ids = typeof prompt === 'string' ? engine.encode(prompt) : prompt;
  const logits = await engine.logits(ids);
  const loss = ids.length > 1 ? await engine.loss(ids) : null;
  output.result({ logits: Array.from(logits), loss }, () => mostLikely(engine, logits, loss, output));
}

function mostLikely({ tokenizer }: InferenceEngine, logits: Float32Array, loss: number | null, output: Output): string {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
  const rows = Array.from(logits, (logit, id) => ({ id, logit }))
    .sort((a, b) => b.logit - a.logit)
    .slice(0, shownTokens)
    .map(({ id, logit }) => [
      JSON.stringify(tokenizer?.decode([id]) ?? ''),
      String(id),
      logit.toFixed(4),
      formatNumber(Math.exp(logit - largest) / total),
    ]);
  const columns = [{ title: 'next token' }, { title: 'id' }, { title: 'logit' }, { title: 'probability' }];
  const table = formatTable(columns, rows);
  return loss === null ? table : `${table}\n${output.colors.dim(`mean loss of the tokens given: ${loss.toFixed(4)}`)}`;
}
