/**
 * Output items of past responses by id. Clients that may rely on storage (it is the default of the API) send back
 * references in place of the items; the newest ones are kept, within a bound of memory.
 */
import type { ConversationItem } from '../requests/responses-request';

const MOST_CHARS = 16 << 20;

interface Stored {
  readonly item: ConversationItem;
  readonly owner: string;
  readonly chars: number;
}

export class ItemStore {
  readonly #items = new Map<string, Stored>();
  readonly #mostChars: number;
  #chars = 0;

  constructor(mostChars = MOST_CHARS) {
    this.#mostChars = mostChars;
  }

  put(id: string, item: ConversationItem, owner: string): void {
    const chars = JSON.stringify(item).length;
    this.#items.set(id, { item, owner, chars });
    this.#chars += chars;
    for (const [oldest, stored] of this.#items) {
      if (this.#chars <= this.#mostChars) break;
      this.#items.delete(oldest);
      this.#chars -= stored.chars;
    }
  }

  /** Undefined for what was never stored, is no longer, or belongs to another key. */
  get(id: string, owner: string): ConversationItem | undefined {
    const stored = this.#items.get(id);
    return stored?.owner === owner ? stored.item : undefined;
  }
}
