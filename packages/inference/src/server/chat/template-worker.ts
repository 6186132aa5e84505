/** What runs in the worker that renders chat templates. It stands alone: its text is all that the worker gets. */
import type * as Jinja from '@huggingface/jinja';

export interface RenderJob {
  readonly template: string;
  readonly context: Readonly<Record<string, unknown>>;
}

export type RenderReply = { readonly text: string } | { readonly error: string } | { readonly ready: true };

interface Port {
  postMessage(reply: RenderReply): void;
  on(event: 'message', listener: (job: RenderJob) => void): void;
}

/** Uses nothing from outside itself: it is turned into text. */
function work(port: Port, { Template }: typeof Jinja): void {
  const parsed = new Map<string, Jinja.Template>();
  port.on('message', ({ template, context }) => {
    try {
      let ready = parsed.get(template);
      if (!ready) {
        ready = new Template(template);
        parsed.set(template, ready);
      }
      port.postMessage({ text: ready.render({ ...context }) });
    } catch (error) {
      port.postMessage({ error: error instanceof Error ? error.message : 'unknown' });
    }
  });
  port.postMessage({ ready: true });
}

/** The program of the worker. */
export function workerProgram(): string {
  const library = JSON.stringify(require.resolve('@huggingface/jinja'));
  return `(${work})(require('node:worker_threads').parentPort, require(${library}))`;
}
