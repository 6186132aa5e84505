/** Lets the trained model continue a few prompts, word by word. */
import { InferenceEngine } from '@ds/inference';
import type { SampleRecord } from '../train/records';

/** Beginnings that every package has. */
export const quickstartPrompts = ['export interface', '/**\n * Returns', '## Installation'];

export interface CompleteOptions {
  readonly folder: string;
  readonly signal: AbortSignal;
  /** Hears a prompt before its continuation. */
  readonly onPrompt: (prompt: string) => void;
  readonly onText: (text: string) => void;
}

/** Continues each prompt; a small model writes best when it draws among the likely tokens, with a seed. */
export async function completePrompts({ folder, signal, onPrompt, onText }: CompleteOptions): Promise<SampleRecord[]> {
  await using engine = await InferenceEngine.load(folder, { signal });
  const samples: SampleRecord[] = [];
  for (const prompt of quickstartPrompts) {
    onPrompt(prompt);
    const stream = engine.generate(prompt, { maxNewTokens: 64, temperature: 0.7, topP: 0.9, seed: 1, signal });
    for await (const { text } of stream) onText(text);
    const { text, tokensPerSecond } = await stream.final();
    samples.push({ type: 'sample', prompt, text, tokens_per_second: tokensPerSecond });
  }
  return samples;
}
