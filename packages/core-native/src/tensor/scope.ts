/** Scopes: what is made inside and not handed out is disposed at the end. */
import type { Tensor } from './tensor';

let current: Set<Tensor> | undefined;

/** @internal Called by every new tensor. */
export function track(tensor: Tensor): void {
  current?.add(tensor);
}

/** Anything that tensors may be handed out in. */
type Carrier = unknown;

function handOut(value: Carrier, inner: Set<Tensor>, outer: Set<Tensor> | undefined): void {
  if (typeof value !== 'object' || value === null) return;
  if (inner.has(value as Tensor)) {
    inner.delete(value as Tensor);
    outer?.add(value as Tensor);
    return;
  }
  const prototype = Object.getPrototypeOf(value);
  if (Array.isArray(value)) for (const item of value) handOut(item, inner, outer);
  else if (prototype === Object.prototype || prototype === null)
    for (const item of Object.values(value)) handOut(item, inner, outer);
}

/**
 * Runs `fn` and drops one reference of every tensor made meanwhile, except those in its result (a tensor, or arrays and
 * plain objects of them), which pass to the surrounding scope. `fn` must not be asynchronous.
 */
export function scope<T>(fn: () => T): T {
  const outer = current;
  const inner = new Set<Tensor>();
  current = inner;
  try {
    const result = fn();
    handOut(result, inner, outer);
    return result;
  } finally {
    current = outer;
    for (const tensor of inner) tensor.dispose();
  }
}

/** Takes a tensor out of the current scope: the caller owns its reference from now on. */
export function keep<T extends Tensor>(tensor: T): T {
  current?.delete(tensor);
  return tensor;
}

/** Disposes a tensor of the current scope before the scope's end. */
export function drop(tensor: Tensor): void {
  keep(tensor).dispose();
}

/** Gives the caller's reference of a kept tensor to the current scope, which drops it at its end. */
export function adopt<T extends Tensor>(tensor: T): T {
  current?.add(tensor);
  return tensor;
}
