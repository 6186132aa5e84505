/**
 * @ds/io: files and text at the edge. Safetensors, Hugging Face model folders, tokenizers, token datasets.
 *
 * Speaks in bytes, ids and texts; knows no device, no gradient and no model. Everything it reads is untrusted: sizes are
 * checked before memory is taken (`LIMITS`), and what breaks a format is a `DsError` that names file, place and remedy.
 * Everything it writes appears whole or not at all.
 */

export { BatchLoader, type BatchOptions, type TokenBatch } from './dataset/batches';
export { type Blend, BlendedDataset, buildBlend, samplesPerDataset } from './dataset/blended-dataset';
export {
  type Corpus,
  type CorpusOptions,
  collectCorpus,
  isHeldOut,
  type TokenFilesStats,
  type WriteTokenFilesOptions,
  writeTokenFiles,
} from './dataset/corpus';
export {
  type Document,
  type DocumentFilesOptions,
  type DocumentStats,
  newDocumentStats,
  readDocuments,
} from './dataset/document-files';
export { ContiguousDataset, GptDataset, type GptDatasetOptions } from './dataset/gpt-dataset';
export type { TokenDtype } from './dataset/indexed-format';
export {
  IndexedTokens,
  IndexedTokensWriter,
  type OpenIndexedTokensOptions,
  tokenDtypeFor,
} from './dataset/indexed-tokens';
export { RandomState } from './dataset/mt19937';
export { RowDataset, type RowDatasetOptions } from './dataset/row-dataset';
export { buildSampleOrder, type SampleOrder, type SampleOrderOptions } from './dataset/sample-order';
export { splitByRange, splitByWeights } from './dataset/splits';
export type { TokenDataset } from './dataset/token-dataset';
export { AtomicFile, syncFolder, writeFileAtomically } from './files/atomic-file';
export { ioError, readBoundedFile } from './files/bounded-file';
export { type ChatTemplate, readChatTemplate } from './hugging-face/chat-template';
export {
  type ModelFolder,
  openModelFolder,
  openWeights,
  readTokenizerFiles,
} from './hugging-face/model-folder';
export { formatJson, type ModelFolderContent, ModelFolderWriter } from './hugging-face/model-folder-writer';
export {
  isJsonObject,
  type JsonObject,
  type JsonValue,
  ownValue,
  type ParseJsonOptions,
  parseJson,
} from './json/strict-json';
export { LIMITS } from './limits';
export { bitsOf, byteLengthOf, elementCountOf, FILE_DTYPES, type FileDtype, isFileDtype } from './safetensors/dtype';
export { type OpenSafetensorsOptions, SafetensorsFile } from './safetensors/reader';
export type { TensorData, TensorInfo, TensorSource, TensorSpec } from './safetensors/tensor-source';
export { SafetensorsWriter, type SafetensorsWriterOptions, writeSafetensors } from './safetensors/writer';
export type { DocumentEncoder } from './tokenizer/document-encoder';
export { type EncodeCorpusOptions, encodeCorpus } from './tokenizer/encode-corpus';
export { HuggingFaceTokenizer, type TokenRoles } from './tokenizer/hugging-face-tokenizer';
export { createTokenizer, loadTokenizer } from './tokenizer/load-tokenizer';
export type { PreSplitName } from './tokenizer/pre-split';
export { tokenBytes } from './tokenizer/token-bytes';
export type { DecodeOptions, EncodeOptions, StreamDecoder, Tokenizer } from './tokenizer/tokenizer';
export {
  saveTokenizer,
  type TrainedTokenizer,
  type TrainTokenizerOptions,
  trainTokenizer,
} from './tokenizer/trainer/train-tokenizer';
