/** Block layouts, compiled for the kernels: which blocks of a [T, T] matrix of scores exist in each head. */
import { type Device, type DeviceName, device as deviceOf, withOwner } from '../device';
import { DsError } from '../errors';
import { keep } from '../tensor/scope';
import { Tensor } from '../tensor/tensor';

/** Tokens a block may have. */
export const blockSizes = [16, 32, 64, 128] as const;

/** A layout as a drawing: what `BlockLayout` compiles. */
export interface BlockDrawing {
  /** Tokens of a block: 16, 32, 64 or 128. */
  readonly block: number;
  /** N: the sequence has N * block tokens. */
  readonly blocks: number;
  /** The distinct layouts: N rows of N numbers, nonzero where the row's queries see the column's keys. */
  readonly layouts: readonly ArrayLike<number>[];
  /** Which of them each head has. */
  readonly headLayout: readonly number[];
}

/** Lists of blocks by rows and by columns, of all layouts behind each other; see csrc/kernels/attention/block_layout.h. */
interface BlockLists {
  readonly headLayout: Int32Array;
  readonly rowStart: Int32Array;
  readonly columns: Int32Array;
  readonly columnStart: Int32Array;
  readonly rows: Int32Array;
  readonly places: Int32Array;
}

/**
 * Blocks by rows and by columns, on every device that has asked for them once.
 *
 * Holds device memory until it is disposed. It knows nothing of causality: that is the op's, by tokens.
 */
export class BlockLayout implements Disposable {
  readonly block: number;
  /** N */
  readonly blocks: number;
  readonly heads: number;
  /** Distinct layouts. */
  readonly layouts: number;
  /** Blocks of all heads together. */
  readonly nonzeroBlocks: number;
  readonly #lists: BlockLists;
  readonly #headBlocks: readonly number[];
  readonly #onDevice = new Map<string, readonly Tensor[]>();

  /** @throws CONFIG for a block that is not built; SHAPE for drawings of another size, and heads of no layout */
  constructor(drawing: BlockDrawing) {
    expectDrawing(drawing);
    const { block, blocks, layouts, headLayout } = drawing;
    this.block = block;
    this.blocks = blocks;
    this.heads = headLayout.length;
    this.layouts = layouts.length;
    this.#lists = compile(drawing);
    const { rowStart } = this.#lists;
    const counts = layouts.map((_, p) => rowStart[p * (blocks + 1) + blocks]! - rowStart[p * (blocks + 1)]!);
    this.#headBlocks = headLayout.map((p) => counts[p]!);
    this.nonzeroBlocks = this.#headBlocks.reduce((sum, count) => sum + count, 0);
  }

  /** T */
  get tokens(): number {
    return this.blocks * this.block;
  }

  /** Part of all pairs of tokens that is there, over all heads. */
  get density(): number {
    return this.blocks === 0 ? 0 : this.nonzeroBlocks / (this.heads * this.blocks ** 2);
  }

  /** Blocks of one head. */
  blocksOf(head: number): number {
    return this.#headBlocks[head]!;
  }

  /** The lists on a device, in the order of the contract. Uploaded by the first call. */
  tensorsOn(name: DeviceName | Device): readonly Tensor[] {
    const device = deviceOf(name);
    let tensors = this.#onDevice.get(device.name);
    if (!tensors) {
      const { headLayout, rowStart, columns, columnStart, rows, places } = this.#lists;
      const upload = (values: Int32Array, shape: number[]) =>
        keep(withOwner('block layouts', () => Tensor.from(values, shape, { dtype: 'i32', device })));
      const starts = [this.layouts, this.blocks + 1];
      tensors = [
        upload(headLayout, [headLayout.length]),
        upload(rowStart, starts),
        upload(columns, [columns.length]),
        upload(columnStart, starts),
        upload(rows, [rows.length]),
        upload(places, [places.length]),
      ];
      this.#onDevice.set(device.name, tensors);
    }
    return tensors;
  }

  [Symbol.dispose](): void {
    for (const tensors of this.#onDevice.values()) for (const tensor of tensors) tensor.dispose();
    this.#onDevice.clear();
  }
}

function expectDrawing({ block, blocks, layouts, headLayout }: BlockDrawing): void {
  const refuse = (code: 'CONFIG' | 'SHAPE', expected: string, actual: string, hint: string) => {
    throw new DsError({ code, op: 'BlockLayout', expected, actual, hint });
  };
  if (!blockSizes.some((size) => size === block))
    refuse('CONFIG', `a block of ${blockSizes.join(', ')} tokens`, String(block), 'choose one of them');
  const wrong = layouts.find((cells) => cells.length !== blocks * blocks);
  if (wrong)
    refuse('SHAPE', `${blocks} x ${blocks} blocks in every layout`, `${wrong.length}`, 'draw every row in full');
  const head = headLayout.findIndex((p) => !(p in layouts));
  if (head >= 0)
    refuse('SHAPE', `one of ${layouts.length} layouts for head ${head}`, String(headLayout[head]), 'count from 0');
  if (headLayout.length === 0) refuse('SHAPE', 'at least one head', 'none', 'name the layout of every head');
}

function compile({ blocks: N, layouts, headLayout }: BlockDrawing): BlockLists {
  const rowStart: number[] = [];
  const columns: number[] = [];
  const columnStart: number[] = [];
  const rows: number[] = [];
  const places: number[] = [];
  for (const cells of layouts) {
    const placeOf = new Int32Array(N * N);
    for (let r = 0; r <= N; r++) {
      rowStart.push(columns.length);
      for (let c = 0; r < N && c < N; c++) if (cells[r * N + c]) placeOf[r * N + c] = columns.push(c) - 1;
    }
    for (let c = 0; c <= N; c++) {
      columnStart.push(rows.length);
      for (let r = 0; c < N && r < N; r++)
        if (cells[r * N + c]) {
          rows.push(r);
          places.push(placeOf[r * N + c]!);
        }
    }
  }
  return {
    headLayout: Int32Array.from(headLayout),
    rowStart: Int32Array.from(rowStart),
    columns: Int32Array.from(columns),
    columnStart: Int32Array.from(columnStart),
    rows: Int32Array.from(rows),
    places: Int32Array.from(places),
  };
}
