/** A model with its weights, as the engine lends it to those who compute. */
import type { DecoderModel } from '../decoder/decoder-model';

export interface ModelInMemory {
  readonly model: DecoderModel;
  /** Whoever must end before the model's memory goes. */
  readonly users: Set<Disposable>;
}
