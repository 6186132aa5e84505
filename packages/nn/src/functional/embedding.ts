/** The embedding look-up and its gradient. */
import { embeddingBackward, embedding as embeddingOp, type Tensor } from '@ds/core-native';
import { currentTape } from '../autograd/tape';
import type { Parameter } from '../module/parameter';

/** Looks up `ids [R] i32` in `table [V, C]`: [R, C]. The gradient needs the ids alone, not the table's values. */
export function embedding(ids: Tensor, table: Parameter): Tensor {
  const y = embeddingOp(ids, table.value);
  currentTape()?.record({
    name: 'embedding',
    inputs: [],
    output: y,
    saved: [ids],
    backward: (dy) => {
      const { into, accumulate } = table.gradTarget();
      embeddingBackward(dy, ids, into, accumulate);
      return [];
    },
  });
  return y;
}
