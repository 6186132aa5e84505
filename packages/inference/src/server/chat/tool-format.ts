/** How families of models spell calls of tools in their text, and how those are read back. */
import { randomUUID } from 'node:crypto';

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON, as text. */
  readonly arguments: string;
}

export interface Parsed {
  /** Text that belongs to no call. */
  readonly text: string;
  readonly calls: readonly ToolCall[];
}

/**
 * Takes an answer in pieces. What may be a call waits until that is clear; what turns out to be none comes out as the model
 * wrote it.
 */
export interface ToolCallParser {
  push(text: string): Parsed;
  end(): Parsed;
}

export type ToolFormat = 'hermes' | 'llama3';

/** Reads off a template how its model was taught to call tools; undefined where it was not. */
export function toolFormatOf(template: string): ToolFormat | undefined {
  if (!/\btools\b/.test(template)) return undefined;
  if (template.includes('<tool_call>')) return 'hermes';
  return /["']parameters["']/.test(template) ? 'llama3' : undefined;
}

export function newToolCallParser(format: ToolFormat): ToolCallParser {
  return format === 'hermes' ? new HermesParser() : new Llama3Parser();
}

const MOST_CALLS = 128;
const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';

/** `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them between texts. Hermes, Qwen. */
class HermesParser implements ToolCallParser {
  #held = '';
  #inCall = false;

  push(text: string): Parsed {
    this.#held += text;
    let out = '';
    const calls: ToolCall[] = [];
    for (;;) {
      const mark = this.#inCall ? CLOSE : OPEN;
      const place = this.#held.indexOf(mark);
      if (place < 0) break;
      const before = this.#held.slice(0, place);
      this.#held = this.#held.slice(place + mark.length);
      if (this.#inCall) {
        const call = callIn(before);
        if (call) calls.push(call);
        else out += OPEN + before + CLOSE;
      } else out += before.trimEnd();
      this.#inCall = !this.#inCall;
    }
    if (!this.#inCall) {
      // White space before a call is no part of the text, and a mark may come in pieces.
      const certain = this.#held.slice(0, this.#held.length - openLength(this.#held, OPEN)).trimEnd().length;
      out += this.#held.slice(0, certain);
      this.#held = this.#held.slice(certain);
    }
    return { text: out, calls };
  }

  end(): Parsed {
    const rest = this.#held;
    this.#held = '';
    if (!this.#inCall) return { text: rest.trim() === '' ? '' : rest, calls: [] };
    // Models leave the last mark out when they end with the call.
    const call = callIn(rest);
    return call ? { text: '', calls: [call] } : { text: OPEN + rest, calls: [] };
  }
}

/** The whole answer is `{"name": ..., "parameters": {...}}`, or several with `;` between. Llama 3. */
class Llama3Parser implements ToolCallParser {
  #held = '';
  #isText = false;

  push(text: string): Parsed {
    this.#held += text;
    const start = this.#held.trimStart();
    if (!this.#isText && (start === '' || start.startsWith('{'))) return { text: '', calls: [] };
    this.#isText = true;
    const out = this.#held;
    this.#held = '';
    return { text: out, calls: [] };
  }

  end(): Parsed {
    const calls = callsIn(this.#held);
    return calls ? { text: '', calls } : { text: this.#held, calls: [] };
  }
}

/** Calls with `;` between; undefined for anything else. A `;` may stand in a text, too, so each is tried, up to a bound. */
function callsIn(text: string): ToolCall[] | undefined {
  const calls: ToolCall[] = [];
  let from = 0;
  for (const { index } of [...text.matchAll(/(?<=\}\s{0,8});/g)].slice(0, MOST_CALLS)) {
    const call = callIn(text.slice(from, index));
    if (!call) continue;
    calls.push(call);
    from = index + 1;
  }
  const last = callIn(text.slice(from));
  return last ? [...calls, last] : undefined;
}

function callIn(text: string): ToolCall | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { name, arguments: given, parameters } = value as Record<string, unknown>;
  const passed = given ?? parameters ?? {};
  if (typeof name !== 'string' || typeof passed !== 'object') return undefined;
  return { id: `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`, name, arguments: JSON.stringify(passed) };
}

/** Characters at the end that `mark` begins with. */
function openLength(text: string, mark: string): number {
  for (let n = Math.min(mark.length - 1, text.length); n > 0; n--) if (text.endsWith(mark.slice(0, n))) return n;
  return 0;
}
