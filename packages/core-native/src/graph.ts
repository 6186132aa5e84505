/** Graphs: work of a GPU that is recorded once and replayed at the price of one launch. */
import type { Device } from './device';
import { DsError } from './errors';
import { native } from './loader';
import { scope } from './tensor/scope';

/**
 * A recording of the ops that a function queued on a CUDA device.
 *
 * Replays read and write the same memory as the recording: write new inputs into the tensors that the function read, and
 * read the results from those that it returned. Numbers that are arguments of ops (learning rates, dropout's offsets)
 * are recorded as they were.
 */
export class Graph implements Disposable {
  readonly #device: Device;
  /** Its own, so that nobody else is given the memory which a replay writes. */
  readonly #stream;
  readonly #id: number;

  private constructor(device: Device, record: () => void) {
    this.#device = device;
    this.#stream = device.createStream();
    this.#stream.wait(device.stream.record());
    native.graph_begin(this.#stream.id);
    try {
      device.withStream(this.#stream, record);
    } finally {
      this.#id = native.graph_end(this.#stream.id);
    }
  }

  /**
   * Records what `fn` queues on `device`, without running it. `fn` must not be asynchronous, read, write or wait.
   *
   * @returns the graph, and what `fn` returned; tensors among that hold garbage until the first `launch`
   * @throws DEVICE for a device that is no GPU
   */
  static capture<T>(device: Device, fn: () => T): { graph: Graph; result: T } {
    if (!device.isCuda)
      throw new DsError({
        code: 'DEVICE',
        op: 'graph',
        expected: 'a CUDA device',
        actual: device.name,
        hint: 'call the function itself: only launches on a GPU are worth recording',
      });
    let result: T;
    const graph = new Graph(device, () => {
      result = scope(fn);
    });
    return { graph, result: result! };
  }

  /** Queues the recorded work behind what is queued on the device's stream; what is queued later waits for it. */
  launch(): void {
    this.#stream.wait(this.#device.stream.record());
    native.graph_launch(this.#stream.id, this.#id);
    this.#device.stream.wait(this.#stream.record());
  }

  /** Frees the recording. The tensors that `capture` returned are the caller's. */
  dispose(): void {
    native.graph_destroy(this.#stream.id, this.#id);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
