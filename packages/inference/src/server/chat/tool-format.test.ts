/** Calls of tools in the text of two families, in pieces of any size. */

import { hermesTemplate } from '../../../test-support/scripted-model';
import { newToolCallParser, type ToolFormat, toolFormatOf } from './tool-format';

/** Pushes a text in pieces; gives the text outside of calls, and each call as name and arguments. */
function parsed(format: ToolFormat, text: string, size: number) {
  const parser = newToolCallParser(format);
  const parts = [];
  for (let i = 0; i < text.length; i += size) parts.push(parser.push(text.slice(i, i + size)));
  parts.push(parser.end());
  return {
    text: parts.map((part) => part.text).join(''),
    calls: parts.flatMap((part) => part.calls.map((call) => [call.name, call.arguments])),
  };
}

const one = '{"name": "f", "arguments": {"a": 1}}';

it.each([
  ['hermes', 'Plain text < with <tool signs.', 'Plain text < with <tool signs.', []],
  ['hermes', ` <tool_call>\n${one}\n</tool_call>`, '', [['f', '{"a":1}']]],
  [
    'hermes',
    `I see.\n\n<tool_call>${one}</tool_call>\n<tool_call>{"name":"g"}</tool_call>\n`,
    'I see.',
    [
      ['f', '{"a":1}'],
      ['g', '{}'],
    ],
  ],
  ['hermes', `<tool_call>${one}`, '', [['f', '{"a":1}']]],
  ['hermes', '<tool_call>{"name": "f", "argum', '<tool_call>{"name": "f", "argum', []],
  ['hermes', '<tool_call>nonsense</tool_call> and on', '<tool_call>nonsense</tool_call> and on', []],
  ['hermes', '<tool_call>{"arguments": {}}</tool_call>', '<tool_call>{"arguments": {}}</tool_call>', []],
  ['hermes', 'ends with <tool_', 'ends with <tool_', []],
  ['hermes', '  two  spaces  ', '  two  spaces', []],
  ['llama3', '{"name": "f", "parameters": {"a": "é"}}', '', [['f', '{"a":"é"}']]],
  [
    'llama3',
    ' \n{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"b": ";{"}}',
    '',
    [
      ['f', '{}'],
      ['g', '{"b":";{"}'],
    ],
  ],
  ['llama3', 'The answer is {"name": "f"}', 'The answer is {"name": "f"}', []],
  ['llama3', '{"colour": "red"}', '{"colour": "red"}', []],
  ['llama3', '', '', []],
] as [ToolFormat, string, string, string[][]][])('%s %j', (format, text, rest, calls) => {
  for (const size of [1, 2, 3, 7, 1_000]) expect(parsed(format, text, size)).toEqual({ text: rest, calls });
});

it('shows text as soon as it can be no call', () => {
  const parser = newToolCallParser('hermes');
  expect(parser.push('Hello <').text).toBe('Hello');
  expect(parser.push('b>').text).toBe(' <b>');
  expect(newToolCallParser('llama3').push('Hello').text).toBe('Hello');
});

it('knows families by their templates', () => {
  expect(toolFormatOf(hermesTemplate)).toBe('hermes');
  expect(
    toolFormatOf(
      `{%- if tools %}{{ 'Respond in the format {"name": function name, "parameters": dictionary}' }}{% endif %}`,
    ),
  ).toBe('llama3');
  expect(toolFormatOf('{% for m in messages %}{{ m.content }}{% endfor %}')).toBeUndefined();
  expect(toolFormatOf('{% if tools %}{{ tools }}{% endif %}')).toBeUndefined();
});
