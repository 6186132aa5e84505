/** From the items of a Responses request to messages of a conversation. */
import { ApiError } from '../http/api-error';
import type { Message } from '../requests/messages';
import type { ConversationItem, InputItem } from '../requests/responses-request';
import type { ItemStore } from './item-store';

/** Puts stored items in place of references. @throws ApiError 400 for one that is not stored */
export function resolvedItems(items: readonly InputItem[], store: ItemStore, owner: string): ConversationItem[] {
  return items.map((item, i) => {
    if (item.type !== 'item_reference') return item;
    const stored = store.get(item.id, owner);
    if (stored) return stored;
    throw ApiError.invalid(
      'The item that is referred to is not stored here, or no longer. Send the items themselves (store: false).',
      `input[${i}].id`,
      'item_not_found',
    );
  });
}

/** Calls that follow an answer, or each other, belong to one message. */
export function messagesOf(instructions: string | undefined, items: readonly ConversationItem[]): Message[] {
  const messages: Message[] = instructions === undefined ? [] : [plain('system', instructions)];
  for (const item of items) {
    if (item.type === 'function_call_output')
      messages.push({ role: 'tool', content: item.output, tool_call_id: item.call_id, name: undefined });
    else if (item.type === 'message') messages.push(plain(item.role, item.content));
    else {
      const call = {
        id: item.call_id,
        type: 'function' as const,
        function: { name: item.name, arguments: item.arguments },
        index: undefined,
      };
      const last = messages.at(-1);
      if (last?.role === 'assistant')
        messages[messages.length - 1] = { ...last, tool_calls: [...(last.tool_calls ?? []), call] };
      else messages.push({ ...assistant(''), tool_calls: [call] });
    }
  }
  return messages;
}

function plain(role: 'system' | 'developer' | 'user' | 'assistant', content: string): Message {
  return role === 'assistant' ? assistant(content) : { role, content, name: undefined };
}

function assistant(content: string) {
  return { role: 'assistant' as const, content, name: undefined, tool_calls: undefined };
}
