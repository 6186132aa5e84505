/** Chat templates: where folders keep them, in which shapes, and what is refused. */
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readChatTemplate } from './chat-template';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ds-chat-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, content: string) => writeFileSync(path.join(folder, name), content);
const config = (value: object) => write('tokenizer_config.json', JSON.stringify(value));

it('is found in the configuration, with the texts of tokens', () => {
  config({
    chat_template: 'T',
    bos_token: '<s>',
    eos_token: { content: '</s>', lstrip: false },
    pad_token: null,
    other: 'x',
  });
  expect(readChatTemplate(folder)).toEqual({
    template: 'T',
    toolTemplate: undefined,
    tokens: { bos_token: '<s>', eos_token: '</s>' },
  });
});

it('is found in a file of its own, which comes first', () => {
  config({ chat_template: 'old', eos_token: '</s>' });
  write('chat_template.jinja', 'new é');
  expect(readChatTemplate(folder)).toMatchObject({ template: 'new é', tokens: { eos_token: '</s>' } });
});

it('may have a name, and one for tools beside it', () => {
  config({
    chat_template: [
      { name: 'tool_use', template: 'U' },
      { name: 'default', template: 'D' },
      { name: 'rag', template: 'R' },
    ],
  });
  expect(readChatTemplate(folder)).toMatchObject({ template: 'D', toolTemplate: 'U' });
});

it('is missing where a model knows no conversations', () => {
  expect(readChatTemplate(folder)).toBeUndefined();
  config({ chat_template: null });
  expect(readChatTemplate(folder)).toBeUndefined();
});

it.each([
  ['a number', { chat_template: 7 }],
  ['a list without default', { chat_template: [{ name: 'rag', template: 'R' }] }],
  ['a list of texts', { chat_template: ['T'] }],
  ['256 KB and one character', { chat_template: 'x'.repeat((256 << 10) + 1) }],
  [
    'a tool template of that size',
    {
      chat_template: [
        { name: 'default', template: 'D' },
        { name: 'tool_use', template: 'x'.repeat((256 << 10) + 1) },
      ],
    },
  ],
])('%s is refused', (_, value) => {
  config(value);
  expect(() => readChatTemplate(folder)).toThrow(expect.objectContaining({ code: 'FORMAT' }));
});

it('is bounded as a file, too, and never read from outside the folder', () => {
  write('chat_template.jinja', 'x'.repeat((256 << 10) + 1));
  expect(() => readChatTemplate(folder)).toThrow(expect.objectContaining({ code: 'FORMAT' }));
  rmSync(path.join(folder, 'chat_template.jinja'));
  symlinkSync('/etc/hostname', path.join(folder, 'chat_template.jinja'));
  expect(() => readChatTemplate(folder)).toThrow();
});
