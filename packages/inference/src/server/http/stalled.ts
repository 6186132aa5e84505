/** Ends connections whose clients do not take what was written. */
import type { ServerResponse } from 'node:http';

/** Destroys a response that was ended, when nothing of it leaves for so long. */
export function destroyWhenStalled(response: ServerResponse, stallMs: number): void {
  let before: number | undefined;
  const watch = setInterval(() => {
    const unsent = response.socket?.writableLength ?? 0;
    if (unsent > 0 && unsent === before) response.destroy();
    before = unsent;
  }, stallMs);
  response.on('close', () => clearInterval(watch));
}
