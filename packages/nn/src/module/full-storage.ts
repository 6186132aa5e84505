/**
 * Holds a whole model in memory, for inference and for tests: one flat buffer a unit, whose slices *are* the parameters.
 * (What holds a model cut over ranks is ZeRO's.)
 */
import {
  copy,
  type Device,
  type DeviceName,
  DsError,
  type DType,
  device,
  dtypeBytes,
  keep,
  Tensor,
  withOwner,
} from '@ds/core-native';
import type { Parameter } from './parameter';
import type { Unit } from './unit';

export interface FullStorageOptions {
  /** Default `cpu`. */
  device?: DeviceName | Device;
  /** What the weights are stored as; default f32. */
  dtype?: DType;
  /** Holds gradients beside the weights, of the same dtype; default false. */
  gradients?: boolean;
}

/** One unit's weights, and its gradients if wanted, back to back in the order of its parameters. */
export interface UnitBuffers {
  readonly unit: Unit;
  /** [elements of the unit] */
  readonly data: Tensor;
  /** [elements of the unit] */
  readonly grad: Tensor | undefined;
}

/** The memory of a whole model. The contents are undefined until they are written. */
export class FullStorage implements Disposable {
  readonly device: Device;
  readonly dtype: DType;
  readonly buffers: readonly UnitBuffers[];
  readonly #parameters = new Map<string, Parameter>();
  readonly #own: Tensor[] = [];

  /** @throws INTERNAL when somebody holds the model already; OOM */
  constructor(units: readonly Unit[], options: FullStorageOptions = {}) {
    this.device = device(options.device ?? 'cpu');
    this.dtype = options.dtype ?? 'f32';
    for (const parameter of units.flatMap((unit) => unit.parameters)) {
      if (parameter.data) throw alreadyHeld(parameter);
      this.#parameters.set(parameter.name, parameter);
    }
    try {
      this.buffers = units.map((unit) => ({
        unit,
        data: this.#allocate('parameters', unit),
        grad: options.gradients ? this.#allocate('gradients', unit) : undefined,
      }));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
    for (const { unit, data, grad } of this.buffers) {
      let offset = 0;
      for (const parameter of unit.parameters) {
        parameter.data = keep(data.view(parameter.shape, offset));
        parameter.grad = grad && keep(grad.view(parameter.shape, offset));
        parameter.resetGrad();
        offset += parameter.numel;
      }
    }
  }

  /** All parameters, by name. */
  get parameters(): ReadonlyMap<string, Parameter> {
    return this.#parameters;
  }

  /** Bytes of weights and gradients. */
  get bytes(): number {
    return this.buffers.reduce(
      (sum, { data, grad }) => sum + (data.numel + (grad?.numel ?? 0)) * dtypeBytes[this.dtype],
      0,
    );
  }

  /** @throws FORMAT for a name that the model does not have */
  parameter(name: string): Parameter {
    const parameter = this.#parameters.get(name);
    if (parameter) return parameter;
    throw new DsError({
      code: 'FORMAT',
      op: 'load weights',
      expected: 'the name of a parameter of this model',
      actual: JSON.stringify(name),
      hint: `names look like ${[...this.#parameters.keys()].slice(0, 3).join(', ')}`,
    });
  }

  /** Writes a whole parameter from numbers, rounded to the storage's dtype, in stream order. @throws FORMAT, SHAPE */
  write(name: string, values: ArrayLike<number>): void {
    this.parameter(name).value.write(values);
  }

  /**
   * Writes elements of a parameter that come packed as `dtype`, converted on the device, in stream order.
   *
   * @param start first element of the flattened parameter; default 0. So a large tensor can come in pieces.
   * @throws FORMAT, SHAPE for elements outside the parameter
   */
  writePacked(name: string, dtype: DType, bytes: Uint8Array, start = 0): void {
    const parameter = this.parameter(name);
    const count = bytes.byteLength / dtypeBytes[dtype];
    if (!Number.isInteger(count) || start + count > parameter.numel)
      throw new DsError({
        code: 'SHAPE',
        op: `load ${name}`,
        expected: `elements within the ${parameter.numel} of [${parameter.shape.join(', ')}]`,
        actual: `${bytes.byteLength} bytes of ${dtype} from element ${start} on`,
      });
    using piece = keep(parameter.value.view([count], start));
    if (dtype === this.dtype) {
      piece.writeBytes(bytes);
      return;
    }
    using packed = keep(Tensor.empty([count], { dtype, device: this.device }));
    packed.writeBytes(bytes);
    copy(packed, piece);
  }

  /** Starts a new micro-batch: the next gradients overwrite. */
  resetGradients(): void {
    for (const parameter of this.#parameters.values()) parameter.resetGrad();
  }

  /** Takes data and gradients away from the model and frees them. */
  [Symbol.dispose](): void {
    if (this.#own.length === 0) return;
    for (const parameter of this.#parameters.values()) {
      parameter.data?.dispose();
      parameter.grad?.dispose();
      parameter.data = parameter.grad = undefined;
    }
    for (const tensor of this.#own) tensor.dispose();
    this.#own.length = 0;
  }

  #allocate(owner: string, unit: Unit): Tensor {
    const elements = unit.parameters.reduce((sum, parameter) => sum + parameter.numel, 0);
    const { dtype, device } = this;
    const buffer = withOwner(owner, () => keep(Tensor.empty([elements], { dtype, device })));
    this.#own.push(buffer);
    return buffer;
  }
}

/** Gives a model memory for all its parameters on one device. The caller disposes it. */
export function holdFull(model: { readonly units: readonly Unit[] }, options: FullStorageOptions = {}): FullStorage {
  return new FullStorage(model.units, options);
}

function alreadyHeld(parameter: Parameter): DsError {
  return new DsError({
    code: 'INTERNAL',
    op: 'holdFull',
    expected: 'a model that nobody holds yet',
    actual: `${parameter.name} with data`,
    hint: 'dispose the other storage or engine first, or make another model from the same config',
  });
}
