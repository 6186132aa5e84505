/** Runs `ds` inside a test. */
import { Readable } from 'node:stream';
import { main } from '../src/main';

export interface Outcome {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** Runs `ds` in this process, and says what it wrote and how it ended. */
export async function ds(args: readonly string[], stdin = ''): Promise<Outcome> {
  const outcome: Outcome = { stdout: '', stderr: '', exitCode: 0 };
  const catching = (stream: 'stdout' | 'stderr') =>
    jest.spyOn(process[stream], 'write').mockImplementation((text) => {
      outcome[stream] += String(text);
      return true;
    });
  const listeners = process.stdout.listeners('error');
  const spies = [catching('stdout'), catching('stderr')];
  const realStdin = Object.getOwnPropertyDescriptor(process, 'stdin')!;
  Object.defineProperty(process, 'stdin', { value: Readable.from([Buffer.from(stdin)]), configurable: true });
  try {
    await main(args);
  } finally {
    Object.defineProperty(process, 'stdin', realStdin);
    for (const spy of spies) spy.mockRestore();
    for (const listener of process.stdout.listeners('error'))
      if (!listeners.includes(listener)) process.stdout.off('error', listener as () => void);
    outcome.exitCode = Number(process.exitCode ?? 0);
    process.exitCode = undefined;
  }
  return outcome;
}
