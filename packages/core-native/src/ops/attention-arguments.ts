/** The checks of meaning that all kinds of attention share, and their options as the kernels take them. */
import { DsError } from '../errors';
import type { Tensor } from '../tensor/tensor';
import type { AttentionOptions } from './attention';
import { expectDevice, expectDType, expectFloat, expectShape, statisticsDType } from './check';

export function expectFused(op: string, qkv: Tensor, heads: number): { B: number; T: number; H: number; D: number } {
  expectFloat(op, 'qkv', qkv);
  if (!Number.isInteger(heads) || heads < 1)
    throw new DsError({ code: 'SHAPE', op, expected: 'at least 1 head', actual: String(heads) });
  expectShape(op, 'qkv', qkv, [null, null, null], 'view it as [B, T, H * 3 * D]');
  const [B, T, width] = qkv.shape as [number, number, number];
  if (width === 0 || width % (3 * heads) !== 0)
    throw new DsError({
      code: 'SHAPE',
      op,
      expected: `a last dim of qkv that is ${heads} heads * 3 * head size`,
      actual: `[${qkv.shape.join(', ')}]`,
      hint: 'qkv holds the query, key and value of every head side by side',
    });
  return { B, T, H: heads, D: width / (3 * heads) };
}

export function expectCommon(
  op: string,
  qkv: Tensor,
  H: number,
  options: Pick<AttentionOptions, 'slopes' | 'scale'>,
): void {
  const { slopes, scale } = options;
  if (slopes) {
    expectShape(op, 'slopes', slopes, [H], 'one ALiBi slope a head');
    expectDType(op, 'slopes', slopes, [statisticsDType(qkv.dtype)]);
    expectDevice(op, qkv, slopes);
  }
  if (scale !== undefined && !Number.isFinite(scale))
    throw new DsError({ code: 'CONFIG', op, expected: 'a finite scale', actual: String(scale) });
}

export function expectMask(op: string, qkv: Tensor, mask: Tensor, shape: [number, number]): void {
  expectShape(op, 'mask', mask, shape, 'one number for every token so far, 1 where it is real');
  expectDType(op, 'mask', mask, ['u8'], "make it with { dtype: 'u8' }");
  expectDevice(op, qkv, mask);
}

/** What backward is given beside the options; `forward` names the function that gave `saved`. */
export function expectSaved(
  op: string,
  forward: string,
  dout: Tensor,
  { qkv, out, lse }: { qkv: Tensor; out: Tensor; lse: Tensor },
  { B, T, H, D }: { B: number; T: number; H: number; D: number },
): void {
  const hint = `pass the tensors that ${forward}() gave`;
  expectShape(op, 'dout', dout, [B, T, H * D]);
  expectShape(op, 'out', out, [B, T, H * D], hint);
  expectShape(op, 'lse', lse, [B, H, T], hint);
  expectDType(op, 'dout', dout, [qkv.dtype]);
  expectDType(op, 'out', out, [qkv.dtype]);
  expectDType(op, 'lse', lse, [statisticsDType(qkv.dtype)]);
}

/** The options as the kernels take them. */
export function attentionScalars(op: string, D: number, options: Omit<AttentionOptions, 'heads'>) {
  const { p, seed, offset } = options.dropout ?? { p: 0, seed: 0, offset: 0 };
  if (!(p >= 0 && p < 1))
    throw new DsError({ code: 'CONFIG', op, expected: '0 <= p < 1 for dropout', actual: String(p) });
  for (const [name, value] of Object.entries({ seed, offset }))
    if (!Number.isSafeInteger(value) || value < 0)
      throw new DsError({
        code: 'CONFIG',
        op,
        expected: `a whole number from 0 to 2^53 - 1 for dropout.${name}`,
        actual: String(value),
      });
  return {
    slopes: options.slopes?.id ?? 0,
    mask: options.mask?.id ?? 0,
    scale: options.scale ?? 1 / Math.sqrt(D),
    causal: options.causal ?? true,
    p,
    seed,
    offset,
  };
}
