/** Embedding: rows of a table by their numbers. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';

/**
 * Looks up `table[ids]`.
 *
 * @param ids any shape, i32
 * @param table [V, C] f32, bf16 or f16
 * @returns [...ids.shape, C], dtype of the table
 * @throws SHAPE, DTYPE, DEVICE; an id outside [0, V) fails the stream (seen at its next join), naming id and position
 */
export function embedding(ids: Tensor, table: Tensor): Tensor {
  expectDType('embedding', 'ids', ids, ['i32'], 'make ids with { dtype: "i32" }');
  expectFloat('embedding', 'table', table);
  expectShape('embedding', 'table', table, [null, null]);
  expectDevice('embedding', ids, table);
  const y = Tensor.empty([...ids.shape, table.dim(1)], { dtype: table.dtype, device: table.device });
  native.embedding(table.device.stream.id, y.id, ids.id, table.id);
  return y;
}

/**
 * Writes the gradient of `embedding` with respect to its table: for every row the sum of the dy that named it, in f32,
 * in the order of their positions.
 *
 * @param dy [...ids.shape, C], any float dtype
 * @param dtable [V, C], any float dtype
 * @param accumulate adds to what is there; otherwise rows that no id names become 0
 * @returns dtable
 */
export function embeddingBackward(dy: Tensor, ids: Tensor, dtable: Tensor, accumulate: boolean): Tensor {
  expectDType('embedding_backward', 'ids', ids, ['i32']);
  expectFloat('embedding_backward', 'dy', dy);
  expectFloat('embedding_backward', 'dtable', dtable);
  expectShape('embedding_backward', 'dtable', dtable, [null, null]);
  expectShape('embedding_backward', 'dy', dy, [...ids.shape, dtable.dim(1)]);
  expectDevice('embedding_backward', dy, ids, dtable);
  native.embedding_backward(dy.device.stream.id, dtable.id, dy.id, ids.id, accumulate);
  return dtable;
}
