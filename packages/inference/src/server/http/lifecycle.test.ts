/** Clients that go (S5), a queue that is full, and a server that ends (S8). */
import { chatBody, eventsOf, readAll, TestServer, until } from '../../../test-support/http-client';

const long = { ignore_eos: true, max_tokens: 100_000 };

describe('S5: what a client leaves behind is freed', () => {
  it.each(['queued', 'in the prompt', 'in the answer'])('%s, whole and in a stream', async (stage) => {
    const slow = stage === 'in the prompt' ? { promptMs: 60_000 } : { tokenMs: 1 };
    await using server = await TestServer.start({ ...slow, slots: stage === 'queued' ? 1 : 8 });
    const first = new AbortController();
    if (stage === 'queued')
      void server.open('/v1/chat/completions', chatBody('x', long), {}, first.signal).catch(() => {});
    if (stage === 'queued') await until(() => server.model.metrics().running === 1);
    for (const stream of [false, true])
      for (const path of ['/v1/chat/completions', '/v1/responses', '/v1/completions']) {
        const body = {
          '/v1/chat/completions': chatBody('x', { ...long, stream }),
          '/v1/responses': { model: 'scripted', input: 'x', ignore_eos: true, stream },
          '/v1/completions': { model: 'scripted', prompt: ['x', 'y'], ...long, stream },
        }[path];
        const controller = new AbortController();
        const before = server.model.requests.length;
        const response = server.open(path, body, {}, controller.signal);
        response.catch(() => {});
        await until(() => server.model.requests.length > before);
        if (stage === 'in the answer') {
          const written = server.model.tokensWritten;
          await until(() => server.model.tokensWritten > written + 5);
        }
        controller.abort();
        await until(() => {
          const { running, waiting } = server.model.metrics();
          return running === (stage === 'queued' ? 1 : 0) && waiting === 0;
        });
      }
    first.abort();
    await until(() => server.model.pagesInUse === 0);
    expect(server.faults).toEqual([]);
    const written = server.model.tokensWritten;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(server.model.tokensWritten).toBe(written);
  });

  it('after 300 aborts at random moments nothing is left', async () => {
    await using server = await TestServer.start({ promptMs: 2, tokenMs: 1, slots: 16 });
    await Promise.all(
      Array.from({ length: 300 }, async (_, i) => {
        const stream = i % 2 === 0;
        const signal = AbortSignal.timeout(5 + ((i * 7919) % 120));
        const body = chatBody('x', { ignore_eos: true, max_tokens: 40, stream });
        await server
          .open('/v1/chat/completions', body, {}, signal)
          .then((response) => response.text())
          .catch(() => {});
      }),
    );
    await until(() => server.model.metrics().running + server.model.metrics().waiting === 0);
    expect(server.model.pagesInUse).toBe(0);
    expect(server.faults).toEqual([]);
    expect((await server.chat('x')).status).toBe(200);
  });
});

it('a full queue is answered with 429 and a time to come back', async () => {
  await using server = await TestServer.start({ promptMs: 60_000, slots: 1 }, { limits: { queue: 2 } });
  const controller = new AbortController();
  const waiting = Array.from({ length: 3 }, () =>
    server.open('/v1/chat/completions', chatBody('x'), {}, controller.signal).catch(() => {}),
  );
  await until(() => server.model.metrics().waiting === 2);
  for (const stream of [false, true]) {
    const { status, headers, json } = await server.chat('x', { stream });
    expect([status, headers.get('retry-after'), headers.get('x-should-retry')]).toEqual([429, '1', 'true']);
    expect(json.error).toMatchObject({ type: 'rate_limit_error', code: 'queue_full' });
  }
  controller.abort();
  await Promise.all(waiting);
});

it('100 streams at once all end in order', async () => {
  await using server = await TestServer.start({ answer: () => '0123456789', slots: 32 });
  const texts = await Promise.all(Array.from({ length: 100 }, () => server.chat('x', { stream: true })));
  for (const { status, text } of texts) {
    expect([status, text.slice(-14)]).toEqual([200, 'data: [DONE]\n\n']);
    expect(
      eventsOf(text)
        .map((event) => event.choices?.[0].delta.content ?? '')
        .join(''),
    ).toBe('0123456789');
  }
});

describe('S8: the end', () => {
  it('comes when what runs has finished; what is new is refused, and /ready says so at once', async () => {
    const server = await TestServer.start({ tokenMs: 2, answer: () => 'y'.repeat(150) });
    const running = Array.from({ length: 20 }, (_, i) => server.chat('x', { stream: i % 2 === 0 }));
    await until(() => server.model.metrics().running === 20);
    expect((await server.get('/ready')).status).toBe(200);
    const closed = server.server.close(30_000);
    for (const { status, headers, json } of [
      await server.get('/ready'),
      await server.chat('x'),
      await server.get('/v1/models'),
    ]) {
      expect([status, headers.get('retry-after'), headers.get('x-should-retry')]).toEqual([503, '5', 'true']);
      expect(json.error).toMatchObject({ type: 'server_error', code: 'shutting_down' });
    }
    expect((await server.get('/health')).status).toBe(200);
    expect((await server.get('/metrics')).status).toBe(200);
    for (const { status, text } of await Promise.all(running)) {
      expect(status).toBe(200);
      expect(text.endsWith('data: [DONE]\n\n') || JSON.parse(text).choices[0].finish_reason === 'stop').toBe(true);
    }
    await closed;
    await expect(server.get('/health')).rejects.toThrow();
  });

  it('comes with an error for what takes too long', async () => {
    const server = await TestServer.start({ tokenMs: 5 });
    const running = Array.from({ length: 20 }, (_, i) => server.chat('x', { ...long, stream: i % 2 === 0 }));
    await until(() => server.model.metrics().running === 20);
    const startMs = Date.now();
    await server.server.close(100);
    expect(Date.now() - startMs).toBeLessThan(5_000);
    for (const [i, { status, text }] of (await Promise.all(running)).entries()) {
      expect(status).toBe(i % 2 === 0 ? 200 : 503);
      expect(text).toMatch(
        /"error":\{"message":"the server is shutting down","type":"server_error","param":null,"code":"shutting_down"\}\}\n*$/,
      );
    }
    expect(server.model.pagesInUse).toBe(0);
  });

  it('does not wait for connections without requests, and can be hurried', async () => {
    const server = await TestServer.start({ promptMs: 60_000 });
    const idle = await server.socket();
    const running = server.chat('x');
    await until(() => server.model.metrics().running === 1);
    const slow = server.server.close(60_000);
    await server.server.close(0);
    await slow;
    expect((await running).status).toBe(503);
    expect(await readAll(idle)).toBe('');
  });
});
