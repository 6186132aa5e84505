/** Memory of a forward pass. */
import { keep, scope, type Tensor, withOwner } from '@ds/core-native';

/**
 * Runs `fn`, books what it makes as activations and frees all of it but the tensors that it returns, which are the
 * caller's, whatever scope the caller stands in.
 */
export function inActivations<T extends readonly Tensor[]>(fn: () => readonly [...T]): readonly [...T] {
  const kept = withOwner('activations', () => scope(fn));
  for (const tensor of kept) keep(tensor);
  return kept;
}
