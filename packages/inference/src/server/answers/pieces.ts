/** Answers in pieces: the engine's tokens, with calls of tools taken out of the text. */
import { newToolCallParser, type ToolCall, type ToolCallParser, type ToolFormat } from '../chat/tool-format';
import type { ServedToken } from '../served-model';

export type FinishReason = 'stop' | 'length' | 'tool_calls';

export interface Piece {
  /** Which answer. */
  readonly choice: number;
  readonly token: ServedToken;
  readonly text: string;
  readonly calls: readonly ToolCall[];
  /** With an answer's last piece. */
  readonly finish: FinishReason | undefined;
}

export interface PieceOptions {
  readonly toolFormat?: ToolFormat | undefined;
  /** Only the first call of an answer counts. */
  readonly oneCall?: boolean;
}

/** Gives a piece for every token. */
export async function* piecesOf(
  tokens: AsyncIterable<ServedToken>,
  options: PieceOptions = {},
): AsyncGenerator<Piece, void> {
  const { toolFormat, oneCall = false } = options;
  const parsers = new Map<number, ToolCallParser>();
  const called = new Map<number, number>();
  for await (const token of tokens) {
    const { index: choice, finishReason } = token;
    let { text } = token;
    const calls: ToolCall[] = [];
    if (toolFormat) {
      const parser = parsers.get(choice) ?? newToolCallParser(toolFormat);
      parsers.set(choice, parser);
      const parsed = [parser.push(text), ...(finishReason ? [parser.end()] : [])];
      text = parsed.map((part) => part.text).join('');
      const left = oneCall ? 1 - (called.get(choice) ?? 0) : Number.POSITIVE_INFINITY;
      calls.push(...parsed.flatMap((part) => part.calls).slice(0, left));
      called.set(choice, (called.get(choice) ?? 0) + calls.length);
    }
    yield { choice, token, text, calls, finish: finishOf(finishReason, (called.get(choice) ?? 0) > 0) };
  }
}

function finishOf(reason: ServedToken['finishReason'], called: boolean): FinishReason | undefined {
  if (reason === undefined || reason === 'length') return reason;
  return called ? 'tool_calls' : 'stop';
}

/** Counts what is paid for. */
export class Usage {
  readonly promptTokens: number;
  completionTokens = 0;

  constructor(promptTokens: number) {
    this.promptTokens = promptTokens;
  }

  count({ token }: Piece): void {
    if (!token.fromPrompt) this.completionTokens++;
  }

  toJSON() {
    const { promptTokens, completionTokens } = this;
    return {
      prompt_tokens: promptTokens,
      completion_tokens: completionTokens,
      total_tokens: promptTokens + completionTokens,
    };
  }
}
