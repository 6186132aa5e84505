/** Output of a response: items that open, grow and close, and the events that tell of it, in the order that clients need. */
import { randomUUID } from 'node:crypto';
import type { Piece } from '../answers/pieces';
import type { ToolCall } from '../chat/tool-format';

export interface ResponseEvent {
  readonly type: string;
  readonly [field: string]: unknown;
}

export interface MessageItem {
  readonly id: string;
  readonly type: 'message';
  readonly status: string;
  readonly role: 'assistant';
  readonly content: readonly { type: 'output_text'; text: string; annotations: []; logprobs: [] }[];
}

export interface FunctionCallItem {
  readonly id: string;
  readonly type: 'function_call';
  readonly status: string;
  readonly call_id: string;
  readonly name: string;
  readonly arguments: string;
}

export type OutputItem = MessageItem | FunctionCallItem;

export function newId(prefix: string): string {
  return `${prefix}_${randomUUID().replaceAll('-', '')}`;
}

export class OutputItems {
  /** Those that are closed. */
  readonly items: OutputItem[] = [];
  #text: { readonly id: string; text: string } | undefined;

  /** Takes what came; yields the events that tell of it. */
  *take({ text, calls }: Piece): Generator<ResponseEvent, void> {
    if (text !== '') {
      if (!this.#text) yield* this.#open();
      this.#text!.text += text;
      yield { type: 'response.output_text.delta', ...this.#part(), delta: text, logprobs: [] };
    }
    for (const call of calls) {
      yield* this.#close('completed');
      yield* this.#call(call);
    }
  }

  /** Ends the output; one without anything is an empty message. */
  *end(status: 'completed' | 'incomplete'): Generator<ResponseEvent, void> {
    if (!this.#text && this.items.length === 0) yield* this.#open();
    yield* this.#close(status);
  }

  *#open(): Generator<ResponseEvent, void> {
    this.#text = { id: newId('msg'), text: '' };
    const item = messageItem(this.#text.id, 'in_progress', []);
    yield { type: 'response.output_item.added', output_index: this.items.length, item };
    yield { type: 'response.content_part.added', ...this.#part(), part: textPart('') };
  }

  *#close(status: string): Generator<ResponseEvent, void> {
    if (!this.#text) return;
    const { id, text } = this.#text;
    const item = messageItem(id, status, [textPart(text)]);
    yield { type: 'response.output_text.done', ...this.#part(), text, logprobs: [] };
    yield { type: 'response.content_part.done', ...this.#part(), part: textPart(text) };
    yield { type: 'response.output_item.done', output_index: this.items.length, item };
    this.items.push(item);
    this.#text = undefined;
  }

  *#call({ id: call_id, name, arguments: passed }: ToolCall): Generator<ResponseEvent, void> {
    const open: FunctionCallItem = {
      id: newId('fc'),
      type: 'function_call',
      status: 'in_progress',
      call_id,
      name,
      arguments: '',
    };
    const item = { ...open, status: 'completed', arguments: passed };
    const place = { item_id: item.id, output_index: this.items.length };
    yield { type: 'response.output_item.added', output_index: place.output_index, item: open };
    yield { type: 'response.function_call_arguments.delta', ...place, delta: passed };
    yield { type: 'response.function_call_arguments.done', ...place, name, arguments: passed };
    yield { type: 'response.output_item.done', output_index: place.output_index, item };
    this.items.push(item);
  }

  #part() {
    return { item_id: this.#text!.id, output_index: this.items.length, content_index: 0 };
  }
}

function textPart(text: string) {
  return { type: 'output_text' as const, text, annotations: [] as [], logprobs: [] as [] };
}

function messageItem(id: string, status: string, content: MessageItem['content']): MessageItem {
  return { id, type: 'message', status, role: 'assistant', content };
}
