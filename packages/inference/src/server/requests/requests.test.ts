/** What comes in a body: hostile JSON (S2), numbers at and beyond their bounds (S11), unknown fields, null. */
import { chatBody, TestServer } from '../../../test-support/http-client';

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server[Symbol.asyncDispose]());

const paths = [
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/responses',
  '/v1/embeddings',
  '/v1/tokenize',
  '/v1/detokenize',
];
const asked = JSON.stringify(chatBody('x'));
const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth);

describe('S2: hostile JSON is answered with 400 in less than 50 ms', () => {
  const cases: [string, string | Uint8Array][] = [
    ['nothing', ''],
    ['not an object', '[]'],
    ['null', 'null'],
    ['a number', '7'],
    ['half of it', asked.slice(0, -3)],
    ['two of it', asked + asked],
    ['a byte order mark', `\ufeff${asked}`],
    ['not UTF-8', Buffer.from([...Buffer.from('{"model":"'), 0xff, 0xfe, ...Buffer.from('"}')])],
    ['UTF-16', Buffer.from(asked, 'utf16le')],
    ['NaN', asked.replace('}', ',"temperature":NaN}')],
    ['Infinity', asked.replace(/}$/, ',"temperature":Infinity}')],
    ['a number beyond all', asked.replace(/}$/, ',"temperature":1e999}')],
    ['-0.0 and text', asked.replace(/}$/, ',"temperature":-0.0x}')],
    ['a comment', `/* */${asked.slice(0, -1)}//}`],
    ['a comma too many', asked.replace(/}$/, ',}')],
    ['single quotes', asked.replaceAll('"', "'")],
    ['a key twice', asked.replace(/}$/, ',"model":"scripted"}')],
    ['a key twice, escaped', asked.replace(/}$/, ',"mod\\u0065l":"scripted"}')],
    ['__proto__', asked.replace(/}$/, ',"__proto__":{"stream":true}}')],
    ['__proto__, escaped', asked.replace(/}$/, ',"__pr\\u006fto__":{"stream":true}}')],
    ['__proto__ deep inside', asked.replace(/}$/, ',"metadata":{"a":[{"__proto__":1}]}}')],
    ['half a character', asked.replace('"x"', '"\\ud83d"')],
    ['the other half', asked.replace('"x"', '"\\ude42 x"')],
    ['halves in the wrong order', asked.replace('"x"', '"\\ude42\\ud83d"')],
    ['half a character as a key', asked.replace(/}$/, ',"\\ud83d":1}')],
    ['a raw control character', asked.replace('"x"', '"\u0001"')],
    ['a bad escape', asked.replace('"x"', '"\\x41"')],
    ...[65, 1_000, 100_000, 2_000_000]
      .flatMap((depth): [string, string][] => [
        [`${depth} lists`, nested('[', ']', depth)],
        [`${depth} lists, open`, '['.repeat(depth)],
        [`${Math.ceil(depth / 3)} objects`, nested('{"a":', '}', Math.ceil(depth / 3)).replace(':}', ':1}')],
        [`${depth} lists in a field`, asked.replace(/}$/, `,"metadata":${nested('[', ']', depth)}}`)],
      ])
      .filter(([, text]) => text.length < 4e6),
  ];
  it.each(cases)('%s', async (_, body) => {
    for (const path of paths) {
      // A machine that is busy may be slow a few times.
      let best = Number.POSITIVE_INFINITY;
      for (let i = 0; i < 10 && best > 50; i++) {
        const startMs = performance.now();
        const { status, json } = await server.post(path, body);
        best = Math.min(best, performance.now() - startMs);
        expect([path, status]).toEqual([path, 400]);
        expect(json.error).toEqual({
          message: expect.any(String),
          type: 'invalid_request_error',
          param: json.error.param,
          code: expect.any(String),
        });
      }
      expect(best).toBeLessThan(50);
    }
    expect(({} as { stream?: boolean }).stream).toBeUndefined();
    expect((await server.chat('hello')).status).toBe(200);
  });

  it('depth 64 is fine', async () => {
    const { status } = await server.post(
      '/v1/chat/completions',
      asked.replace(/}$/, `,"metadata":${nested('[', ']', 63)}}`),
    );
    expect(status).toBe(200);
  });
});

interface Bounds {
  field: string;
  least: number;
  most: number;
  whole: boolean;
  path?: string;
}

const chatNumbers: Bounds[] = [
  { field: 'temperature', least: 0, most: 2, whole: false },
  { field: 'top_p', least: 0, most: 1, whole: false },
  { field: 'min_p', least: 0, most: 1, whole: false },
  { field: 'top_k', least: -1, most: 2 ** 31 - 1, whole: true },
  { field: 'seed', least: 0, most: Number.MAX_SAFE_INTEGER - 8, whole: true },
  { field: 'n', least: 1, most: 8, whole: true },
  { field: 'presence_penalty', least: -2, most: 2, whole: false },
  { field: 'frequency_penalty', least: -2, most: 2, whole: false },
  { field: 'repetition_penalty', least: 0.01, most: 100, whole: false },
  { field: 'max_tokens', least: 1, most: 1_000, whole: true },
  { field: 'max_completion_tokens', least: 1, most: 1_000, whole: true },
  { field: 'top_logprobs', least: 0, most: 20, whole: true },
];
const numbers: Bounds[] = [
  ...chatNumbers,
  { field: 'logprobs', least: 0, most: 20, whole: true, path: '/v1/completions' },
  { field: 'best_of', least: 1, most: 1, whole: true, path: '/v1/completions' },
  { field: 'max_output_tokens', least: 1, most: 1_000, whole: true, path: '/v1/responses' },
];

describe('S11: numbers are honoured or refused', () => {
  const bodies: Record<string, object> = {
    '/v1/chat/completions': chatBody('x', { logprobs: true }),
    '/v1/completions': { model: 'scripted', prompt: 'x' },
    '/v1/responses': { model: 'scripted', input: 'x' },
  };
  it.each(numbers)('$field', async ({ field, least, most, whole, path = '/v1/chat/completions' }) => {
    const send = (literal: string) => {
      const text = JSON.stringify(bodies[path]).replace(/}$/, `,"${field}":${literal}}`);
      return server.post(path, field === 'logprobs' ? text.replace('"logprobs":true,', '') : text);
    };
    const step = whole ? 1 : 1e-6;
    const good = [least, most, (least + most) / 2].map((value) => String(whole ? Math.floor(value) : value));
    for (const literal of [...good, 'null', ...(least <= 0 ? ['-0'] : [])])
      expect([literal, (await send(literal)).status]).toEqual([literal, 200]);
    for (const { options } of server.model.requests.slice(-3))
      for (const value of Object.values(options))
        if (typeof value === 'number') expect(Number.isFinite(value)).toBe(true);
    const bad = [
      least - step,
      most < 1e9 || field === 'seed' ? most + Math.max(step, most > 1e9 ? 10 : 0) : 2 ** 31,
      1e308,
      -1e308,
    ];
    const shapes = ['"1"', '[1]', '{}', 'true', '1e999', '-1e999', '""', '9007199254740993'];
    const max = field.startsWith('max_') ? [2 ** 31, 2 ** 53] : [];
    for (const literal of [
      ...bad.filter((v) => !field.startsWith('max_') || v < 1 || v > 1e6),
      ...max,
      ...shapes,
      ...(whole ? ['1.5'] : []),
    ].map(String)) {
      const { status, json } = await send(literal);
      expect([literal, status, json.error?.param]).toEqual([literal, 400, field]);
    }
  });

  it.each([
    ['stop', ['a', ['a', 'b'], [], null], ['', ['']]],
    [
      'stop',
      [Array.from({ length: 16 }, () => 'x'.repeat(64))],
      [Array.from({ length: 17 }, () => 'x'), 'x'.repeat(65), 7, [7], {}],
    ],
    [
      'logit_bias',
      [{}, { 65: 100 }, { 257: -100 }, null],
      [{ 258: 1 }, { '-1': 1 }, { a: 1 }, { 65: 101 }, { 65: '1' }, [1], 'x', { 65: null }],
    ],
    ['stream', [true, false, null], ['true', 1, {}]],
    ['ignore_eos', [false, null], ['true', 1]],
    ['model', ['scripted'], ['', 7, null, ['scripted'], 'x'.repeat(300)]],
    [
      'messages',
      [],
      [
        [],
        null,
        'x',
        [{}],
        [{ role: 'user' }],
        [{ role: 'king', content: 'x' }],
        [{ role: 'tool', content: 'x' }],
        [null],
      ],
    ],
    [
      'tools',
      [[], null],
      [{}, [{}], [{ type: 'web_search' }], [{ type: 'function', function: { name: 'no spaces' } }]],
    ],
    ['tools', [], [Array.from({ length: 129 }, (_, i) => ({ type: 'function', function: { name: `f${i}` } }))]],
  ] as [string, unknown[], unknown[]][])('%s', async (field, good, bad) => {
    for (const value of good)
      expect([value, (await server.chat('x', { [field]: value })).status]).toEqual([value, 200]);
    for (const value of bad) {
      const { status, json } = await server.chat('x', { [field]: value });
      expect([value, status, String(json.error.param).split(/[.[]/)[0]]).toEqual([value, 400, field]);
    }
  });

  it('at most 1024 biases', async () => {
    const biases = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [i % 258, 1]));
    expect((await server.chat('x', { logit_bias: biases(258) })).status).toBe(200);
    const many = Object.fromEntries(Array.from({ length: 1_025 }, (_, i) => [i, 1]));
    expect((await server.chat('x', { logit_bias: many })).json.error).toMatchObject({
      param: 'logit_bias',
      message: expect.stringContaining('1024'),
    });
  });

  it('a prompt and its answer fit into the context', async () => {
    await using small = await TestServer.start({ contextTokens: 40 });
    expect((await small.chat('x', { max_tokens: 20 })).status).toBe(200);
    for (const more of [{ max_tokens: 21 }, { max_tokens: 2 ** 31 - 1 }]) {
      const { status, json, headers } = await small.chat('x', more);
      expect([status, json.error.code, headers.get('x-should-retry')]).toEqual([
        400,
        'context_length_exceeded',
        'false',
      ]);
    }
    expect((await small.chat('x'.repeat(50))).json.error.code).toBe('context_length_exceeded');
    await small.chat('x');
    expect(small.model.requests.at(-1)!.options.maxNewTokens).toBe(20);
  });
});

describe('fields that are not known', () => {
  const body = {
    ...chatBody('x'),
    foo: 1,
    user: 'ann',
    reasoning_effort: 'low',
    verbosity: null,
    'we\r\nird: ü': 1,
    stream_options: { include_usage: true, other: 1 },
    messages: [
      { role: 'user', content: [{ type: 'text', text: 'x', cache_control: {} }] },
      { role: 'assistant', content: 'y', audio: null, extra: 1 },
      { role: 'user', content: 'z', extra: 2 },
    ],
  };
  it('are listed in a header', async () => {
    const { status, headers } = await server.post('/v1/chat/completions', body);
    expect(status).toBe(200);
    expect(headers.get('x-ds-ignored-fields')!.split(', ').sort()).toEqual(
      [
        'foo',
        'we%0D%0Aird%3A%20%C3%BC',
        'stream_options.other',
        'messages[].content[].cache_control',
        'messages[].extra',
        'user',
        'reasoning_effort',
      ].sort(),
    );
    const streamed = await server.post('/v1/chat/completions', { ...body, stream: true });
    expect(streamed.headers.get('x-ds-ignored-fields')).toBe(headers.get('x-ds-ignored-fields'));
  });

  it('do not make headers of any length', async () => {
    const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`field${i}`, i]));
    const { status, headers } = await server.chat('x', many);
    expect(status).toBe(200);
    expect(headers.get('x-ds-ignored-fields')!.length).toBeLessThan(1_100);
  });

  it('are an error where the server is strict; those that clients send without effect are not', async () => {
    await using strict = await TestServer.start({}, { strict: true });
    const { status, json } = await strict.chat('x', { foo: 1 });
    expect([status, json.error.param, json.error.code]).toEqual([400, 'foo', 'unknown_field']);
    expect((await strict.chat('x', { user: 'ann', store: false })).status).toBe(200);
  });
});
