/** Templates come with models, and may be hostile (L5): they end in time, see nothing of ours, and harm nobody else. */
import { existsSync, readdirSync } from 'node:fs';
import { until } from '../../../test-support/http-client';
import { TemplateRenderer } from './template-renderer';

const hi = { template: 'Hi {{ name }}', context: { name: 'you' } };

it('renders, also many at once, in order', async () => {
  await using renderer = new TemplateRenderer(5_000);
  const texts = await Promise.all(
    Array.from({ length: 50 }, (_, i) => renderer.render({ ...hi, context: { name: String(i) } })),
  );
  expect(texts).toEqual(Array.from({ length: 50 }, (_, i) => `Hi ${i}`));
});

it.each([
  ['a loop without end', '{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %}'],
  [
    'a text without end',
    "{% set ns = namespace(a='x') %}{% for i in range(64) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}",
  ],
  ['a list without end', '{{ range(2000000000) }}'],
])('%s fails alone; those behind it get their answers', async (_, template) => {
  await using renderer = new TemplateRenderer(700);
  await renderer.render(hi);
  const threads = existsSync('/proc/self/task') ? readdirSync('/proc/self/task').length : 0;
  const startMs = Date.now();
  const bad = renderer.render({ template, context: {} });
  bad.catch(() => {});
  const good = renderer.render(hi);
  const error = await bad.catch((caught) => caught);
  expect([400, 500]).toContain(error.status);
  expect(error.message).toMatch(/chat template/);
  expect(await good).toBe('Hi you');
  expect(Date.now() - startMs).toBeLessThan(10_000);
  // Whose worker goes on for ever is not rid of it: the old one is gone when the new one answers.
  if (existsSync('/proc/self/task')) await until(() => readdirSync('/proc/self/task').length <= threads);
});

it.each([
  ["{{ ''.constructor.constructor('return process')() }}"],
  ["{{ messages.__proto__.constructor('return 1')() }}"],
  ['{{ process.env }}'],
  ["{{ require('node:fs') }}"],
  ['{{ globalThis.process.exit(1) }}'],
])('%s gets at nothing', async (template) => {
  await using renderer = new TemplateRenderer(5_000);
  const text = await renderer.render({ template, context: { messages: [] } }).catch((error) => {
    expect(error.status).toBe(400);
    return '';
  });
  expect(text).toBe('');
  expect(await renderer.render(hi)).toBe('Hi you');
});

it.each([
  ["{{ raise_exception('roles must alternate') }}", /roles must alternate/],
  ['{% if %}', /refused/],
  [`${'('.repeat(20_000)}`.replace(/^/, '{{ '), /refused/],
])('what a template says itself is told', async (template, message) => {
  await using renderer = new TemplateRenderer(5_000);
  await expect(renderer.render({ template, context: {} })).rejects.toMatchObject({
    status: 400,
    code: 'chat_template_refused',
    message: expect.stringMatching(message),
  });
  expect(await renderer.render(hi)).toBe('Hi you');
});
