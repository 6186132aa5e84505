/** A model with its weights, as the engine lends it to those who compute. */
import type { CausalLM, FullStorage } from '@ds/nn';

export interface ModelInMemory {
  readonly model: CausalLM;
  readonly storage: FullStorage;
  /** Whoever must end before the model's memory goes. */
  readonly users: Set<Disposable>;
}
