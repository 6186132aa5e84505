/**
 * The addon's shape: the only file that knows it. A test compares it with the addon's own table.
 * Streams, tensors and owners are small numbers; 0 stands for an absent optional tensor.
 */
import type { DsError, DsErrorFields } from './errors';

type Stream = number;
type Id = number;
type OptionalId = number;
type Group = number;
type CapturedGraph = number;

export interface NativeAccount {
  live: number;
  peak: number;
  owners: Record<string, { live: number; peak: number }>;
}

export interface NativeCuda {
  /** The library that was opened, or would be. */
  path: string;
  /** Why there is no device; empty where there is one. */
  problem: string;
  emulated: boolean;
  devices: { name: string; capability: string; multiprocessors: number; total: number; free: number }[];
}

export interface NativeNccl {
  /** The file that was opened; empty for none. */
  path: string;
  version: string;
  /** In this order; `problem` is empty for the one that was opened. */
  tried: { path: string; problem: string }[];
}

export interface NativeRuntime {
  initialize(errorClass: new (fields: DsErrorFields) => DsError): void;
  create_stream(device: number): Stream;
  allocate(stream: Stream, dtype: number, owner: number, ...dims: number[]): Id;
  view(id: Id, elementOffset: number, ...dims: number[]): Id;
  retain(id: Id): void;
  release(id: Id): boolean;
  write(stream: Stream, id: Id, bytes: Uint8Array): void;
  read(stream: Stream, id: Id): Promise<ArrayBuffer>;
  join(stream: Stream): Promise<void>;
  join_sync(stream: Stream): void;
  record(stream: Stream): number;
  wait(stream: Stream, other: Stream, ticket: number): void;
  transfer(stream: Stream, out: Id, x: Id): void;
  graph_begin(stream: Stream): void;
  graph_end(stream: Stream): CapturedGraph;
  graph_launch(stream: Stream, graph: CapturedGraph): void;
  graph_destroy(stream: Stream, graph: CapturedGraph): void;
  cuda(): NativeCuda;
  has_cuda_kernel(op: string): boolean;
  set_cuda_library(path: string): void;
  set_cuda_gemm(choice: number, ...paths: string[]): void;
  cuda_gemm(): string;
  cuda_emulate(devices: number, threads: number, totalMemoryBytes: number, order: number): void;
  trim(stream: Stream): void;
  owner_id(device: number, name: string): number;
  account(device: number): NativeAccount;
  reset_peak(device: number): void;
  set_limit(device: number, bytes: number): void;
  live_tensors(): number;
  sanitized(): boolean;
  threads(): number;
  set_threads(threads: number): void;
  cpu(): { isa: string; supported: string[] };
  set_isa(isa: string): void;
  gemm(): { library: boolean; choice: 'auto' | 'openblas' | 'internal' };
  set_gemm(choice: string): void;
  measure(kind: string, elements: number, repeats: number): number;
  /** One letter an argument: t tensor, o optional tensor, d double, i integer, b flag. */
  readonly signatures: Readonly<Record<string, string>>;
}

export interface NativeCollectives {
  comm_create_segment(world: number): number;
  // biome-ignore format: one function a line
  comm_open(stream: Stream, fd: number, session: string, rank: number, world: number, timeoutMs: number, chunkBytes: number, transport: number, jitterMicros: number): Promise<{ group: Group }>;
  comm_single(timeoutMs: number, chunkBytes: number, transport: number, jitterMicros: number): Group;
  comm_null(rank: number, size: number): Group;
  // biome-ignore format: one function a line
  comm_run(stream: Stream, group: Group, primitive: number, out: OptionalId, input: OptionalId, peer: number, scale: number, accumulate: boolean, tag: string): void;
  comm_open_cuda(stream: Stream, group: Group, exactSums: boolean, always: boolean, timeoutMs: number): void;
  nccl(candidates: string[]): NativeNccl;
  comm_split(stream: Stream, group: Group, color: number, key: number): Promise<{ group: Group }>;
  comm_info(group: Group): { rank: number; size: number; transport: string; flight: string } | undefined;
  /** Calls, elements and bytes of each primitive, in the order of src/collectives/primitives.ts. */
  comm_counters(group: Group): Float64Array;
  comm_reset_counters(group: Group): void;
  comm_abort(group: Group, reason: string): void;
  comm_destroy(stream: Stream, group: Group): void;
  die_with_parent(pid: number): boolean;
}

/** The ops, in the order of csrc/binding/ops.h; the contract of each is its header there. */
export interface NativeOps {
  scale_add(stream: Stream, out: Id, a: Id, b: Id, alpha: number, beta: number): void;
  copy(stream: Stream, out: Id, x: Id, factor: number): void;
  fill(stream: Stream, out: Id, value: number): void;
  fill_normal(stream: Stream, y: Id, mean: number, std: number, seed: number, offset: number): void;
  gelu(stream: Stream, y: Id, x: Id): void;
  gelu_backward(stream: Stream, dx: Id, dy: Id, x: Id): void;
  silu_gate(stream: Stream, y: Id, gate: Id, up: Id): void;
  silu_gate_backward(stream: Stream, dgate: Id, dup: Id, dy: Id, gate: Id, up: Id): void;
  dropout(stream: Stream, y: Id, x: Id, residual: OptionalId, p: number, seed: number, offset: number): void;
  embedding(stream: Stream, y: Id, ids: Id, table: Id): void;
  embedding_backward(stream: Stream, dtable: Id, dy: Id, ids: Id, accumulate: boolean): void;
  // biome-ignore format: one op a line
  softmax_cross_entropy(stream: Stream, losses: Id, dlogits: OptionalId, logits: Id, targets: Id, ignoreIndex: number, scale: number): void;
  sum(stream: Stream, out: Id, x: Id, accumulate: boolean): void;
  square_sum(stream: Stream, out: Id, x: Id, accumulate: boolean): void;
  nonfinite_index(stream: Stream, out: Id, x: Id): void;
  argmax(stream: Stream, out: Id, x: Id): void;
  // biome-ignore format: one op a line
  adamw(stream: Stream, p: Id, m: Id, v: Id, copy: OptionalId, grad: Id, lr: number, beta1: number, beta2: number, eps: number, weightDecay: number, biasCorrection1: number, biasCorrection2: number, gradScale: number, decoupled: boolean): void;
  // biome-ignore format: one op a line
  lamb_moments(stream: Stream, m: Id, v: Id, squares: Id, p: Id, grad: Id, beta1: number, beta2: number, eps: number, weightDecay: number, gradScale: number, accumulate: boolean): void;
  // biome-ignore format: one op a line
  lamb_step(stream: Stream, p: Id, copy: OptionalId, m: Id, v: Id, squares: Id, rate: number, eps: number, weightDecay: number, minCoefficient: number, maxCoefficient: number): void;
  // biome-ignore format: one op a line
  lion(stream: Stream, p: Id, m: Id, copy: OptionalId, grad: Id, lr: number, beta1: number, beta2: number, weightDecay: number, gradScale: number): void;
  // biome-ignore format: one op a line
  linear(stream: Stream, y: Id, pre: OptionalId, x: Id, weight: Id, bias: OptionalId, residual: OptionalId, gelu: boolean): void;
  linear_backward_input(stream: Stream, dx: Id, dy: Id, weight: Id, accumulate: boolean): void;
  // biome-ignore format: one op a line
  linear_backward_weight(stream: Stream, dweight: Id, dbias: OptionalId, dy: Id, x: Id, accumulate: boolean): void;
  // biome-ignore format: one op a line
  pack_weight(stream: Stream, bytes: Id, format: number, rows: number, columns: number, gated: boolean, source: Id, first: number): void;
  // biome-ignore format: one op a line
  packed_rows(stream: Stream, y: Id, ids: Id, bytes: Id, format: number, rows: number, columns: number, gated: boolean): void;
  // biome-ignore format: one op a line
  packed_linear(stream: Stream, y: Id, x: Id, bytes: Id, format: number, rows: number, columns: number, gated: boolean, bias: OptionalId, residual: OptionalId, norm: number, normWeight: OptionalId, normBias: OptionalId, eps: number, activation: number): void;
  // biome-ignore format: one op a line
  packed_argmax(stream: Stream, out: Id, x: Id, bytes: Id, format: number, rows: number, columns: number, gated: boolean, norm: number, normWeight: OptionalId, normBias: OptionalId, eps: number): void;
  // biome-ignore format: one op a line
  layer_norm(stream: Stream, y: Id, mean: Id, rstd: Id, sum: OptionalId, x: Id, residual: OptionalId, weight: Id, bias: Id, eps: number): void;
  // biome-ignore format: one op a line
  layer_norm_backward(stream: Stream, dx: Id, dweight: Id, dbias: Id, dy: Id, dsum: OptionalId, s: Id, mean: Id, rstd: Id, weight: Id, accumulate: boolean): void;
  // biome-ignore format: one op a line
  rms_norm(stream: Stream, y: Id, rstd: Id, sum: OptionalId, x: Id, residual: OptionalId, weight: Id, eps: number): void;
  // biome-ignore format: one op a line
  rms_norm_backward(stream: Stream, dx: Id, dweight: Id, dy: Id, dsum: OptionalId, s: Id, rstd: Id, weight: Id, accumulate: boolean): void;
  // biome-ignore format: one op a line
  attention(stream: Stream, out: Id, lse: Id, qkv: Id, slopes: OptionalId, mask: OptionalId, heads: number, scale: number, causal: boolean, dropout: number, seed: number, offset: number): void;
  // biome-ignore format: one op a line
  attention_backward(stream: Stream, dqkv: Id, dout: Id, qkv: Id, out: Id, lse: Id, slopes: OptionalId, mask: OptionalId, heads: number, scale: number, causal: boolean, dropout: number, seed: number, offset: number): void;
  // biome-ignore format: one op a line
  attention_cached(stream: Stream, out: Id, keys: Id, values: Id, qkv: Id, slopes: OptionalId, mask: OptionalId, heads: number, past: number, scale: number): void;
  // biome-ignore format: one op a line
  paged_write(stream: Stream, q: Id, keys: Id, values: Id, keyScales: OptionalId, valueScales: OptionalId, qkv: Id, starts: Id, past: Id, pages: Id, longest: number, table: OptionalId, queryNorm: OptionalId, keyNorm: OptionalId, heads: number, interleaved: boolean, eps: number): void;
  // biome-ignore format: one op a line
  paged_attention(stream: Stream, out: Id, q: Id, keys: Id, values: Id, keyScales: OptionalId, valueScales: OptionalId, starts: Id, past: Id, pages: Id, longest: number, slopes: OptionalId, heads: number, window: number, scale: number): void;
  // biome-ignore format: one op a line
  sparse_attention(stream: Stream, out: Id, lse: Id, qkv: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, slopes: OptionalId, added: OptionalId, mask: OptionalId, heads: number, scale: number, causal: boolean, dropout: number, seed: number, offset: number): void;
  // biome-ignore format: one op a line
  sparse_attention_backward(stream: Stream, dqkv: Id, dout: Id, qkv: Id, out: Id, lse: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, slopes: OptionalId, added: OptionalId, mask: OptionalId, heads: number, scale: number, causal: boolean, dropout: number, seed: number, offset: number): void;
  // biome-ignore format: one op a line
  block_sdd(stream: Stream, s: Id, a: Id, b: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, transposeA: boolean, transposeB: boolean): void;
  // biome-ignore format: one op a line
  block_dsd(stream: Stream, y: Id, s: Id, b: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, transposeS: boolean, transposeB: boolean): void;
  // biome-ignore format: one op a line
  block_dds(stream: Stream, y: Id, a: Id, s: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, transposeA: boolean, transposeS: boolean): void;
  // biome-ignore format: one op a line
  block_softmax(stream: Stream, p: Id, s: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, added: OptionalId, mask: OptionalId, scale: number, causal: boolean): void;
  // biome-ignore format: one op a line
  block_softmax_backward(stream: Stream, ds: Id, dp: Id, p: Id, headLayout: Id, rowStart: Id, columns: Id, columnStart: Id, rows: Id, places: Id, block: number, scale: number): void;
}

export type Native = NativeRuntime & NativeCollectives & NativeOps;
