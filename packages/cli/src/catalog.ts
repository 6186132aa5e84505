/** The commands of `ds` by name: what `ds --help` shows without loading any of them. */

export interface CatalogEntry {
  readonly name: string;
  /** What stands behind the name in `ds --help`. */
  readonly usage: string;
  readonly summary: string;
}

export const catalog: readonly CatalogEntry[] = [
  { name: 'quickstart', usage: '', summary: 'Train a small BLOOM with ZeRO on this machine, then let it write' },
  { name: 'train', usage: 'CONFIG', summary: 'Train a model as a config file says' },
  { name: 'generate', usage: 'DIR', summary: 'Continue a prompt, token by token' },
  { name: 'serve', usage: 'DIR', summary: "Serve a model to OpenAI's clients over HTTP" },
  { name: 'plan', usage: '', summary: 'Say what memory and traffic a training run needs, without running it' },
  { name: 'launch', usage: 'SCRIPT [ARGS...]', summary: 'Run a script on N ranks of this machine' },
  { name: 'report', usage: 'RUN', summary: 'Write a run as one HTML page' },
  { name: 'logits', usage: 'DIR', summary: 'Give the logits of a sequence of ids' },
  { name: 'tokenize', usage: 'DIR', summary: 'Turn text into ids, or ids into text' },
  { name: 'export', usage: 'CHECKPOINT OUT', summary: 'Write a checkpoint as a Hugging Face folder' },
  { name: 'doctor', usage: '', summary: 'Say what this machine has, what is used, and why not more' },
];

/** Gives the line that describes a command. */
export function summaryOf(name: string): string {
  return catalog.find((entry) => entry.name === name)!.summary;
}
