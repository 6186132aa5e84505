/** Who gets in, and what gets out: keys (S9), no leaks (S14), no requests of our own (S15), foreign pages (S16). */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { chatBody, TestServer } from '../../../test-support/http-client';
import { ScriptedModel } from '../../../test-support/scripted-model';
import { ModelServer } from '../model-server';

const key = 'k-1234567890';
const pathOf = (path: string) => path.replace('{id}', 'scripted');

describe('S9: keys', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await TestServer.start({}, { apiKeys: [key, 'second-key'] });
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it('guard every path but /health', async () => {
    const open = server.server.routes.filter(({ guarded }) => !guarded).map(({ path }) => path);
    expect(open).toEqual(['/health']);
    expect(server.server.routes.length).toBe(11);
    for (const { method, path } of server.server.routes)
      for (const shown of [path, path.replace('/v1', ''), `${path}/`, `${path}?x=1`].map(pathOf))
        for (const headers of [
          {},
          { authorization: 'Bearer wrong' },
          { authorization: key },
          { authorization: `Basic ${key}` },
          { authorization: 'Bearer ' },
        ] as Record<string, string>[]) {
          const {
            status,
            json,
            headers: got,
          } = method === 'GET' ? await server.get(shown, headers) : await server.post(shown, {}, headers);
          if (path === '/health') expect(status).toBe(200);
          else {
            expect([shown, status]).toEqual([shown, 401]);
            expect(json.error).toMatchObject({ type: 'authentication_error', code: 'invalid_api_key', param: null });
            expect(got.get('www-authenticate')).toBe('Bearer');
          }
        }
    expect(server.model.requests).toEqual([]);
  });

  it('are asked for before it is told which paths there are, and before a body is read', async () => {
    for (const path of ['/', '/nothing', '/v1/nothing', '/%ff', '/v1/models/other'])
      expect((await server.get(path)).status).toBe(401);
    const raw = await server.raw(
      'POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n',
    );
    expect(raw).toMatch(/^HTTP\/1\.1 401 /);
  });

  it('let in, each of them', async () => {
    for (const each of [key, 'second-key']) {
      expect((await server.get('/v1/models', { authorization: `Bearer ${each}` })).status).toBe(200);
      expect(
        (await server.post('/v1/chat/completions', chatBody('x'), { authorization: `bearer  ${each}` })).status,
      ).toBe(200);
    }
    expect((await server.get('/nothing', { authorization: `Bearer ${key}` })).json.error.code).toBe('not_found');
  });

  it('keep what one has stored from the other', async () => {
    const stored = await server.post(
      '/v1/responses',
      { model: 'scripted', input: 'x' },
      { authorization: `Bearer ${key}` },
    );
    const reference = {
      model: 'scripted',
      input: [
        { type: 'item_reference', id: stored.json.output[0].id },
        { role: 'user', content: 'y' },
      ],
    };
    expect((await server.post('/v1/responses', reference, { authorization: `Bearer ${key}` })).status).toBe(200);
    expect(
      (await server.post('/v1/responses', reference, { authorization: 'Bearer second-key' })).json.error.code,
    ).toBe('item_not_found');
  });

  it('keep the timing of what one has computed from the other', async () => {
    const salts: string[] = [];
    for (const each of [key, 'second-key', key]) {
      await server.post('/v1/completions', { model: 'scripted', prompt: 'x' }, { authorization: `Bearer ${each}` });
      salts.push(server.model.requests.at(-1)!.cacheSalt);
    }
    expect(new Set(salts).size).toBe(2);
    expect(salts[0]).toBe(salts[2]);
    expect(salts.join()).not.toContain(key);
  });

  it('are needed where others can reach the server', async () => {
    const model = new ScriptedModel();
    await expect(ModelServer.start(model, { port: 0, host: '0.0.0.0' })).rejects.toMatchObject({
      code: 'CONFIG',
      hint: expect.stringContaining('--insecure'),
    });
    for (const options of [{ insecure: true }, { apiKeys: [key] }]) {
      await using server = await ModelServer.start(model, { port: 0, host: '0.0.0.0', ...options });
      expect(
        (await fetch(`http://127.0.0.1:${server.port}/health`, { headers: { host: 'anything.example' } })).status,
      ).toBe(200);
    }
    await expect(ModelServer.start(model, { port: 0, apiKeys: ['with space'] })).rejects.toMatchObject({
      code: 'CONFIG',
    });
    await expect(ModelServer.start(model, { port: 70_000 })).rejects.toMatchObject({ code: 'CONFIG' });
  });
});

describe('S16: pages of others', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await TestServer.start({}, { allowedHosts: ['models.lan'] });
  });
  afterAll(() => server[Symbol.asyncDispose]());
  const asked = (host: string) => server.raw(`GET /health HTTP/1.1\r\n${host}connection: close\r\n\r\n`);

  it.each(['localhost', 'LOCALHOST:8080', '127.0.0.1', '127.0.0.1:99', '[::1]:8080', 'models.lan:1'])(
    'Host %s is answered',
    async (host) => {
      expect(await asked(`host: ${host}\r\n`)).toMatch(/^HTTP\/1\.1 200 /);
    },
  );
  it.each([
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '',
    '169.254.169.254',
    'localhost@evil',
    'localhost:80x',
  ])('Host %j is refused', async (host) => {
    const raw = await asked(`host: ${host}\r\n`);
    expect(raw).toMatch(/^HTTP\/1\.1 403 /);
    expect(raw).toContain('"type":"permission_error"');
  });

  it('may not send what a page can send unasked', async () => {
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=x',
      'application/jsonp',
      '',
    ]) {
      const { status, json } = await server.post('/v1/chat/completions', JSON.stringify(chatBody('x')), {
        'content-type': type,
      });
      expect([type, status, json.error.code]).toEqual([type, 415, 'unsupported_media_type']);
    }
    expect(server.model.requests).toEqual([]);
    const good = await server.post('/v1/chat/completions', chatBody('x'), {
      'content-type': 'application/json; charset=utf-8',
    });
    expect(good.status).toBe(200);
    const preflight = await fetch(`${server.server.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin: 'http://evil.example', 'access-control-request-method': 'POST' },
    });
    expect(preflight.status).toBe(405);
    for (const { headers } of [preflight, good])
      expect([...headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([]);
    expect(good.headers.get('x-content-type-options')).toBe('nosniff');
  });

  it('text of a model is data, never a page', async () => {
    await using hostile = await TestServer.start({ answer: () => '<script>alert(1)</script>' });
    const { headers, json } = await hostile.chat('x');
    expect(headers.get('content-type')).toBe('application/json');
    expect(json.choices[0].message.content).toBe('<script>alert(1)</script>');
  });
});

it('S14: errors tell nothing of the inside', async () => {
  await using server = await TestServer.start({ failWhen: (_, token) => token === 2 });
  const bodies = [
    (await server.chat('my secret')).text,
    (await server.chat('my secret', { stream: true })).text,
    (await server.post('/v1/responses', { model: 'scripted', input: 'my secret', stream: true })).text,
    (await server.post('/v1/completions', { model: 'scripted', prompt: 'my secret' })).text,
    (await server.get('/v1/models/..%2f..%2fetc%2fpasswd')).text,
    (await server.post('/v1/chat/completions', chatBody('x', { model: '/etc/passwd' }))).text,
    (await server.get('/..%2f..%2fetc/passwd')).text,
    (await server.post('/v1/chat/completions', '{"my secret')).text,
  ];
  expect(bodies[0]).toMatch(
    /^\{"error":\{"message":"something went wrong inside; the log names request req_[0-9a-f]{32}","type":"server_error","param":null,"code":"internal_error"\}\}$/,
  );
  for (const body of bodies) {
    expect(body).toContain('"error"');
    expect(body).not.toMatch(/secret\/path|0x[0-9a-f]{4}|\.ts|\.js|node_modules|\n\s+at |passwd|kernel/);
  }
  expect(server.faults).toHaveLength(4);
  expect((await server.get('/health')).status).toBe(200);
});

it('S15: nothing is fetched for a request', async () => {
  let hits = 0;
  const canary = createServer((_, response) => {
    hits++;
    response.end();
  });
  await new Promise<void>((done) => canary.listen(0, '127.0.0.1', done));
  const url = `http://127.0.0.1:${(canary.address() as AddressInfo).port}/x`;
  await using server = await TestServer.start();
  const content = (part: object) => ({ model: 'scripted', messages: [{ role: 'user', content: [part] }] });
  for (const part of [
    { type: 'image_url', image_url: { url } },
    { type: 'input_audio', input_audio: { data: url, format: 'wav' } },
    { type: 'file', file: { file_id: url } },
  ]) {
    const { status, json } = await server.post('/v1/chat/completions', content(part));
    expect([status, json.error.message]).toEqual([400, expect.stringContaining('text only')]);
  }
  const image = { model: 'scripted', input: [{ role: 'user', content: [{ type: 'input_image', image_url: url }] }] };
  expect((await server.post('/v1/responses', image)).status).toBe(400);
  const parameters = { $ref: url, $schema: url, type: 'object' };
  const tools = [{ type: 'function', function: { name: 'f', parameters } }];
  expect((await server.chat('x', { tools })).status).toBe(200);
  expect(
    (
      await server.chat('x', {
        response_format: { type: 'json_schema', json_schema: { name: 'a', schema: parameters } },
      })
    ).status,
  ).toBe(400);
  expect(
    (await server.post('/v1/responses', { model: 'scripted', input: 'x', tools: [{ type: 'mcp', server_url: url }] }))
      .status,
  ).toBe(400);
  await new Promise((done) => canary.close(done));
  expect(hits).toBe(0);
});
