// Completes a prompt with a model folder: node examples/generate.mjs runs/quickstart/model "import"
import { InferenceEngine } from '@ds/inference';

const [folder = 'runs/quickstart/model', prompt = 'import'] = process.argv.slice(2);
const engine = await InferenceEngine.load(folder);
const signal = AbortSignal.timeout(60_000);
for await (const token of engine.generate(prompt, {
  maxNewTokens: 64,
  temperature: 0.8,
  topP: 0.95,
  seed: 1,
  signal,
})) {
  process.stdout.write(token.text);
}
console.log();
await engine[Symbol.asyncDispose]();
