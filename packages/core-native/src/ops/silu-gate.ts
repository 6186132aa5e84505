/** The gate of LLaMA-family MLPs: SiLU of one projection times another. */
import { native } from '../loader';
import { Tensor } from '../tensor/tensor';
import { expectDevice, expectDType, expectFloat, expectShape } from './check';

function expectLike(op: string, argument: string, tensor: Tensor, gate: Tensor): void {
  expectShape(op, argument, tensor, gate.shape);
  expectDType(op, argument, tensor, [gate.dtype]);
  expectDevice(op, gate, tensor);
}

/**
 * Multiplies `silu(gate)` with `up`, where silu(x) = x / (1 + exp(-x)).
 *
 * @param gate any shape; f32, bf16 or f16; backward needs it again
 * @param up like `gate`; backward needs it again
 * @param into where the result goes, like `gate`; default a new tensor; may be `gate` or `up` where no backward follows
 * @throws SHAPE, DTYPE, DEVICE
 * Source: Shazeer 2020, "GLU Variants Improve Transformer", eq. 6 (SwiGLU).
 */
export function siluGate(gate: Tensor, up: Tensor, into?: Tensor): Tensor {
  expectFloat('silu_gate', 'gate', gate);
  expectLike('silu_gate', 'up', up, gate);
  if (into) expectLike('silu_gate', 'into', into, gate);
  const y = into ?? Tensor.empty(gate.shape, { dtype: gate.dtype, device: gate.device });
  native.silu_gate(gate.device.stream.id, y.id, gate.id, up.id);
  return y;
}

/**
 * Gives the gradients of `siluGate` with respect to both of its inputs, in one pass.
 *
 * @param dy gradient of the result, like `gate`
 * @param saved what `siluGate` was given
 * @param into where the gradients go, like `gate`; default new tensors; each may be `dy`, `gate` or `up`
 * @throws SHAPE, DTYPE, DEVICE
 */
export function siluGateBackward(
  dy: Tensor,
  saved: { gate: Tensor; up: Tensor },
  into: { dgate?: Tensor; dup?: Tensor } = {},
): { dgate: Tensor; dup: Tensor } {
  const { gate, up } = saved;
  expectFloat('silu_gate_backward', 'gate', gate);
  for (const [name, tensor] of Object.entries({ dy, up, ...into }))
    expectLike('silu_gate_backward', name, tensor, gate);
  const make = (): Tensor => Tensor.empty(gate.shape, { dtype: gate.dtype, device: gate.device });
  const { dgate = make(), dup = make() } = into;
  native.silu_gate_backward(gate.device.stream.id, dgate.id, dup.id, dy.id, gate.id, up.id);
  return { dgate, dup };
}
