/** The checks of meaning that ops share: one sentence that says op, argument, expected, got, and the remedy. */
import { DsError } from '../errors';
import type { DType } from '../tensor/dtype';
import type { Tensor } from '../tensor/tensor';

/** Requires a shape; `null` stands for any size of that dim, a leading `'...'` for any leading dims. */
export function expectShape(
  op: string,
  argument: string,
  tensor: Tensor,
  shape: readonly (number | null | '...')[],
  hint?: string,
): void {
  const open = shape[0] === '...';
  const wanted = open ? shape.slice(1) : shape;
  const got = open ? tensor.shape.slice(Math.max(0, tensor.shape.length - wanted.length)) : tensor.shape;
  if (got.length === wanted.length && wanted.every((d, i) => d === null || d === got[i])) return;
  throw new DsError({
    code: 'SHAPE',
    op,
    expected: `[${shape.map((d) => d ?? '*').join(', ')}] for ${argument}`,
    actual: `[${tensor.shape.join(', ')}]`,
    hint,
  });
}

/** Requires one of some dtypes. */
export function expectDType(
  op: string,
  argument: string,
  tensor: Tensor,
  dtypes: readonly DType[],
  hint?: string,
): void {
  if (dtypes.includes(tensor.dtype)) return;
  throw new DsError({
    code: 'DTYPE',
    op,
    expected: `${dtypes.join(' or ')} for ${argument}`,
    actual: tensor.dtype,
    hint: hint ?? `cast it with cast(${argument}, '${dtypes[0]}')`,
  });
}

/** Requires a float dtype: f32, bf16 or f16; f64 on `ref` only, which has no fast arithmetic to lose. */
export function expectFloat(op: string, argument: string, tensor: Tensor): void {
  const floats: DType[] = ['f32', 'bf16', 'f16'];
  expectDType(op, argument, tensor, ['ref', 'null'].includes(tensor.device.name) ? [...floats, 'f64'] : floats);
}

/** Requires that all tensors are on one device. */
export function expectDevice(op: string, first: Tensor, ...rest: (Tensor | undefined)[]): void {
  for (const tensor of rest) {
    if (!tensor || tensor.device === first.device) continue;
    throw new DsError({
      code: 'DEVICE',
      op,
      expected: `all tensors on ${first.device.name}`,
      actual: `one on ${tensor.device.name}`,
      hint: 'make them on one device',
    });
  }
}

/** The dtype of statistics and sums kept beside values of `dtype`. */
export function statisticsDType(dtype: DType): DType {
  return dtype === 'f64' ? 'f64' : 'f32';
}
