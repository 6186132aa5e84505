/**
 * The safetensors header: 8 bytes of length, then JSON that names every tensor's type, shape and byte range.
 *
 * The rules are those of the reference implementation (offsets in sequence, without hole, overlap or rest), made
 * stricter where it is silent: duplicate names, unknown fields and the sizes in `limits.ts` are refused.
 * Everything is checked against the size of the file before any memory is taken for tensors.
 * Source: safetensors format description, https://github.com/huggingface/safetensors
 */
import { DsError } from '@ds/core-native';
import { isJsonObject, type JsonObject, type JsonValue, ownValue, parseJson, shorten } from '../json/strict-json';
import { LIMITS } from '../limits';
import { byteLengthOf, dtypeFromFileName, elementCountOf, FILE_DTYPES, type FileDtype } from './dtype';
import type { TensorInfo } from './tensor-source';

/** Bytes before the JSON: its length as u64, little-endian. */
export const LENGTH_BYTES = 8;
const METADATA_KEY = '__metadata__';
const FETCH_AGAIN = 'The file is damaged, cut off or not safetensors; fetch or write it again.';

/** What a header says, checked. */
export interface SafetensorsHeader {
  /** In the order of the bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Free strings, `format` among them in files for transformers. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** Where the header stands, for errors and for offsets. */
export interface HeaderContext {
  readonly op: string;
  readonly path: string;
  readonly fileBytes: number;
}

interface Range {
  readonly name: string;
  readonly dtype: FileDtype;
  readonly shape: readonly number[];
  readonly elementCount: number;
  readonly begin: number;
  readonly end: number;
}

function fault(context: HeaderContext, expected: string, actual: string, hint = FETCH_AGAIN): DsError {
  return new DsError({ code: 'FORMAT', op: context.op, expected: `${expected} in ${context.path}`, actual, hint });
}

/**
 * Reads the length of the JSON from the first 8 bytes and checks it against the file's size.
 *
 * @throws DsError FORMAT
 */
export function parseHeaderLength(first: Uint8Array, context: HeaderContext, maxBytes: number): number {
  const view = new DataView(first.buffer, first.byteOffset, first.byteLength);
  const length = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  const limit = Math.min(maxBytes, LIMITS.safetensorsHeaderBytesHard);
  if (length > limit) {
    const hint =
      length > LIMITS.safetensorsHeaderBytesHard
        ? FETCH_AGAIN
        : `If the file is sound, pass maxHeaderBytes (up to ${LIMITS.safetensorsHeaderBytesHard}).`;
    throw fault(context, `a header of at most ${limit} bytes (offset 0)`, `${length}`, hint);
  }
  if (LENGTH_BYTES + length > context.fileBytes) {
    const actual = `${length} in a file of ${context.fileBytes} bytes`;
    throw fault(context, `a header length that fits the file (offset 0)`, actual);
  }
  if (length < 2) throw fault(context, 'a header of at least 2 bytes (offset 0)', `${length}`);
  return length;
}

/**
 * Checks a header's JSON and returns the tensors with their places in the file.
 *
 * @param json the header's bytes, without the 8 bytes of length
 * @throws DsError FORMAT naming file, tensor and offset
 */
export function parseHeader(json: Uint8Array, context: HeaderContext): SafetensorsHeader {
  if (json[0] !== 0x7b) throw fault(context, `'{' at offset ${LENGTH_BYTES}`, `byte ${json[0] ?? 'none'}`);
  if (json.includes(0)) {
    const offset = LENGTH_BYTES + json.indexOf(0);
    throw fault(context, 'a header padded with spaces', `a zero byte at offset ${offset}`);
  }
  const source = `the header of ${context.path}`;
  // Three levels are all the format has: header, tensor, list. A few more let a better message come from below.
  const root = parseJson(context.op, json, { source, maxDepth: 8, onlyIntegers: true });
  if (!isJsonObject(root)) throw fault(context, 'a JSON object as header', 'another JSON value');
  const metadata = parseMetadata(root, context);
  const entries = Object.entries(root).filter(([name]) => name !== METADATA_KEY);
  if (entries.length > LIMITS.tensors) {
    throw fault(context, `at most ${LIMITS.tensors} tensors`, `${entries.length}`);
  }
  const ranges = entries.map(([name, value]) => parseEntry(name, value, context));
  ranges.sort((a, b) => a.begin - b.begin || a.end - b.end);
  return { metadata, tensors: placeTensors(ranges, LENGTH_BYTES + json.byteLength, context) };
}

function parseMetadata(root: JsonObject, context: HeaderContext): ReadonlyMap<string, string> {
  const value = ownValue(root, METADATA_KEY);
  const metadata = new Map<string, string>();
  if (value === undefined) return metadata;
  if (!isJsonObject(value)) throw fault(context, `an object of strings as ${METADATA_KEY}`, shorten(String(value)));
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') {
      throw fault(context, `a string as ${METADATA_KEY}[${shorten(key)}]`, shorten(JSON.stringify(text)));
    }
    metadata.set(key, text);
  }
  return metadata;
}

/** Says what is wrong with a tensor's name, or nothing if it may be used. */
export function nameProblem(name: string): string | undefined {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0) return 'an empty name';
  if (bytes > LIMITS.tensorNameBytes) return `a name of ${bytes} bytes (limit ${LIMITS.tensorNameBytes})`;
  if (/\p{Cs}/u.test(name)) return 'a name with an unpaired surrogate';
  if (name.includes('\0')) return 'a name with a zero character';
  if (name === METADATA_KEY) return `the reserved name ${METADATA_KEY}`;
  return undefined;
}

function parseEntry(name: string, value: JsonValue, context: HeaderContext): Range {
  const label = `tensor ${shorten(name)}`;
  const problem = nameProblem(name);
  if (problem) throw fault(context, 'tensor names of 1 to 512 bytes of Unicode text', `${problem}: ${shorten(name)}`);
  if (!isJsonObject(value)) throw fault(context, `an object for ${label}`, shorten(JSON.stringify(value)));
  for (const key of Object.keys(value)) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') {
      const hint = 'A field this reader does not know may change what the bytes mean; write the file without it.';
      throw fault(context, `only dtype, shape and data_offsets for ${label}`, `also ${shorten(key)}`, hint);
    }
  }
  const fileDtype = ownValue(value, 'dtype');
  const dtype = typeof fileDtype === 'string' ? dtypeFromFileName(fileDtype) : undefined;
  if (!dtype) {
    const known = FILE_DTYPES.map((known) => known.toUpperCase()).join(', ');
    throw fault(context, `a dtype of ${known} for ${label}`, shorten(JSON.stringify(fileDtype) ?? 'none'));
  }
  const shape = integers(ownValue(value, 'shape'));
  if (!shape || shape.length > LIMITS.tensorRank) {
    const actual = shape ? `${shape.length} dims` : shorten(JSON.stringify(ownValue(value, 'shape')) ?? 'none');
    throw fault(context, `a shape of at most ${LIMITS.tensorRank} sizes for ${label}`, actual);
  }
  const offsets = integers(ownValue(value, 'data_offsets'));
  const [begin, end] = offsets ?? [];
  if (offsets?.length !== 2 || begin === undefined || end === undefined || begin > end) {
    const actual = shorten(JSON.stringify(ownValue(value, 'data_offsets')) ?? 'none');
    throw fault(context, `data_offsets [begin, end] with begin <= end for ${label}`, actual);
  }
  const elementCount = elementCountOf(shape);
  const byteLength = elementCount === undefined ? undefined : byteLengthOf(dtype, elementCount);
  if (elementCount === undefined || byteLength !== end - begin) {
    const need = byteLength === undefined ? 'no whole number of bytes below 2^53' : `${byteLength} bytes`;
    const expected = `data_offsets that hold [${shape.join(', ')}] ${dtype} (${need}) for ${label}`;
    throw fault(context, expected, `[${begin}, ${end}], ${end - begin} bytes`);
  }
  return { name, dtype, shape: Object.freeze(shape), elementCount, begin, end };
}

/** Returns the list if it holds integers only (the JSON scan refused negative, fractional and huge ones). */
function integers(value: JsonValue | undefined): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return value.every((item) => typeof item === 'number') ? (value as number[]) : undefined;
}

/** Checks that the ranges, sorted by begin, follow each other exactly and end with the file. */
function placeTensors(
  ranges: readonly Range[],
  dataStart: number,
  context: HeaderContext,
): ReadonlyMap<string, TensorInfo> {
  const tensors = new Map<string, TensorInfo>();
  let position = 0;
  for (const { name, dtype, shape, elementCount, begin, end } of ranges) {
    if (begin !== position) {
      const what = begin < position ? 'overlaps the tensor before it' : 'leaves a hole before it';
      const expected = `tensor ${shorten(name)} to begin at ${position}, where the one before ends,`;
      throw fault(context, expected, `${begin} (it ${what}; data begins at file offset ${dataStart})`);
    }
    tensors.set(
      name,
      Object.freeze({ name, dtype, shape, elementCount, byteLength: end - begin, byteOffset: dataStart + begin }),
    );
    position = end;
  }
  const present = context.fileBytes - dataStart;
  if (position !== present) {
    const what = position > present ? 'the file is cut off' : 'bytes follow that belong to no tensor';
    throw fault(context, `${position} bytes of tensor data after offset ${dataStart}`, `${present} (${what})`);
  }
  return tensors;
}
