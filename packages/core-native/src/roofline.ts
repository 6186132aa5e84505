/** What this machine can do at most, measured: the denominators of every benchmark. */
import { native } from './loader';

/**
 * `memcpy`, `stream_copy` (past the caches), `read`, `triad` (a = b + 3c), `adam_mix` (4 reads, 3 writes in place) move
 * bytes; `fma` computes on registers.
 */
export type RooflineKind = 'memcpy' | 'stream_copy' | 'read' | 'triad' | 'adam_mix' | 'fma';

/**
 * Measures one limit on the thread pool, with the vector unit in use. Blocks for some tens of passes, so measure while
 * nothing else runs, and side by side with what is compared: the bandwidth of shared machines wanders.
 *
 * @param options.elements floats in each array; default 2^25 (128 MiB each, four at most). Give the size of the tensors
 *   compared, because caches may hold smaller ones.
 * @param options.repeats passes, of which the median counts; default 9
 * @returns bytes a second (read plus written), or for `fma` floating-point operations a second
 */
export function measureRoofline(kind: RooflineKind, options: { elements?: number; repeats?: number } = {}): number {
  const { elements = 2 ** 25, repeats = 9 } = options;
  return native.measure(kind, elements, repeats);
}
