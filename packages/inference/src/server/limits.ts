/** Every bound that a request must respect, in one place. Above each: why it is there. */

export interface ServerLimits {
  /** A conversation of 128k tokens is about half a megabyte. */
  readonly bodyBytes: number;
  readonly headerBytes: number;
  readonly headerFields: number;
  /** Below what overflows the stack of JSON.stringify and of validators that recurse. */
  readonly jsonDepth: number;
  /** From the first byte of a request to the last of its headers. */
  readonly headersMs: number;
  /** To the last of its body. */
  readonly receiveMs: number;
  /** Between two requests of one connection. */
  readonly idleMs: number;
  /** From the headers to the end of the answer. */
  readonly requestMs: number;
  /** How long a client may leave what was written unread. */
  readonly writeStallMs: number;
  readonly connections: number;
  /** Requests that may wait for the engine. More are refused with 429. */
  readonly queue: number;
  /** A comment line goes out when there was nothing to say for so long; proxies cut what is silent. */
  readonly pingMs: number;
  /** How long running requests may go on after SIGTERM. */
  readonly drainMs: number;
  /** For one chat template; a loop of 300,000 takes 2.6 s. */
  readonly templateMs: number;
}

export const defaultLimits: ServerLimits = Object.freeze({
  bodyBytes: 4 << 20,
  headerBytes: 16 << 10,
  headerFields: 100,
  jsonDepth: 64,
  headersMs: 10_000,
  receiveMs: 30_000,
  idleMs: 5_000,
  requestMs: 300_000,
  writeStallMs: 30_000,
  connections: 2_048,
  queue: 512,
  pingMs: 15_000,
  drainMs: 30_000,
  templateMs: 500,
});

/** Bounds of single fields of a request. */
export const fieldLimits = Object.freeze({
  answers: 8,
  prompts: 64,
  stops: 16,
  stopChars: 64,
  logprobs: 20,
  biases: 1_024,
  tools: 128,
  schemaChars: 256 << 10,
  messages: 4_096,
  parts: 1_024,
  nameChars: 64,
  embeddingInputs: 2_048,
});
