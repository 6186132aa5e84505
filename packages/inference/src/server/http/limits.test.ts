/** Limits of connections: too much (S3), too slow (S4), too many. */

import { EventEmitter } from 'node:events';
import type { ServerResponse } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { chatBody, readAll, TestServer, until } from '../../../test-support/http-client';
import { defaultLimits } from '../limits';
import { destroyWhenStalled } from './stalled';

/** Short ones, for those who are slow on purpose; a machine that is busy must not be taken for one of them. */
const short = { headersMs: 700, receiveMs: 700, idleMs: 700 };
const head = (fields: string, path = '/v1/tokenize') => `POST ${path} HTTP/1.1\r\nhost: localhost\r\n${fields}\r\n\r\n`;
const json = 'content-type: application/json';

let server: TestServer;
let impatient: TestServer;
beforeAll(async () => {
  server = await TestServer.start({ answer: () => 'x'.repeat(100_000) }, { limits: { writeStallMs: 500 } });
  impatient = await TestServer.start({}, { limits: short });
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await impatient[Symbol.asyncDispose]();
});

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Memory that is held outside of the heap, garbage not counted. */
function bufferBytes(): number {
  // What the first run lets go is freed beside the program; the second waits for it.
  collectGarbage();
  collectGarbage();
  return process.memoryUsage().arrayBuffers;
}

/** The body of a raw answer. */
function errorIn(raw: string) {
  expect(raw).toMatch(/\r\ncontent-type: application\/json\r\n/i);
  return JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)).error;
}

describe('S3: what is too large is refused before it is kept', () => {
  it('a body that says so itself', async () => {
    const raw = await server.raw(head(`${json}\r\ncontent-length: 4194305`));
    expect(raw).toMatch(/^HTTP\/1\.1 413 /);
    expect(errorIn(raw)).toMatchObject({ type: 'invalid_request_error', code: 'request_too_large' });
  });

  it('before the client is told to go on', async () => {
    const raw = await server.raw(head(`${json}\r\nexpect: 100-continue\r\ncontent-length: 9999999`));
    expect(raw).toMatch(/^HTTP\/1\.1 413 /);
    const fine = await server.raw(
      head(`${json}\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 14`),
      '{"prompt":"x"}',
    );
    expect(fine).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 /);
  });

  it('a client that does not look before it has sent all gets the answer, too', async () => {
    const { status } = await server.post('/v1/tokenize', JSON.stringify({ prompt: 'x'.repeat(6 << 20) }));
    expect(status).toBe(413);
  });

  it('a body in pieces without a length, with little memory', async () => {
    const socket = await server.socket();
    const before = bufferBytes();
    socket.write(head(`${json}\r\ntransfer-encoding: chunked`));
    const piece = Buffer.from(`10000\r\n${'x'.repeat(1 << 16)}\r\n`);
    let answer = '';
    socket.setEncoding('utf8').on('data', (data) => {
      answer += data;
    });
    let sent = 0;
    let most = 0;
    for (; sent < 512 && !socket.destroyed; sent++) {
      if (sent % 16 === 0) most = Math.max(most, bufferBytes() - before);
      if (!socket.write(piece))
        await Promise.race([
          new Promise((done) => socket.once('drain', done)),
          new Promise((done) => socket.once('close', done)),
        ]);
    }
    expect(most).toBeLessThan(defaultLimits.bodyBytes + (1 << 20));
    await until(() => answer.includes('413'));
    await until(() => socket.destroyed);
    expect(bufferBytes() - before).toBeLessThan(1 << 20);
  });

  it('a body of pieces of one byte costs what it weighs', async () => {
    const socket = await server.socket();
    const count = 100_000;
    socket.write(head(`${json}\r\ntransfer-encoding: chunked\r\nconnection: close`));
    const text = JSON.stringify({ prompt: 'y'.repeat(count) });
    const done = readAll(socket);
    const pieces = Buffer.from([...text].map((char) => `1\r\n${char}\r\n`).join(''));
    const before = bufferBytes();
    socket.write(pieces);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // A buffer for each of them would be 10 MB.
    expect(bufferBytes() - before).toBeLessThan(1 << 20);
    socket.write('0\r\n\r\n');
    expect(await done).toContain(`"count":${count}`);
  });

  it('headers: bytes and fields', async () => {
    const large = await server.raw(`GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`);
    expect(large).toMatch(/^HTTP\/1\.1 431 /);
    expect(errorIn(large).code).toBe('headers_too_large');
    const fields = (count: number) => Array.from({ length: count }, (_, i) => `x${i}: 1`).join('\r\n');
    const many = await server.raw(`GET /health HTTP/1.1\r\nhost: localhost\r\n${fields(100)}\r\n\r\n`);
    expect(many).toMatch(/^HTTP\/1\.1 431 /);
    const enough = await server.raw(
      `GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${fields(97)}\r\n\r\n`,
    );
    expect(enough).toMatch(/^HTTP\/1\.1 200 /);
  });
});

it.each([
  'GET / HTTP/9.9\r\n\r\n',
  'nonsense\r\n\r\n',
  '\x00\x01\x02\r\n\r\n',
  head(`${json}\r\ncontent-length: 5\r\ntransfer-encoding: chunked`),
  head(`${json}\r\ncontent-length: -1`),
  `${head(`${json}\r\ntransfer-encoding: chunked`)}zz\r\n`,
  'GET /health HTTP/1.1\r\n\r\n',
])('%j is answered with an error in JSON', async (bytes) => {
  const raw = await server.raw(bytes);
  expect(raw).toMatch(/^HTTP\/1\.1 400 /);
  expect(errorIn(raw).type).toBe('invalid_request_error');
});

it('what follows a request in bad shape does not get into its answer', async () => {
  await using slow = await TestServer.start({ tokenMs: 20 });
  const body = JSON.stringify({ ...chatBody('x'), stream: true, ignore_eos: true, max_tokens: 1_000 });
  const socket = await slow.socket();
  socket.write(`${head(`${json}\r\ncontent-length: ${body.length}`, '/v1/chat/completions')}${body}`);
  await until(() => slow.model.tokensWritten > 3);
  socket.write('nonsense\r\n\r\n');
  expect(await readAll(socket)).not.toContain('400 Bad Request');
  await until(() => slow.model.pagesInUse === 0);
});

it('an expectation that nobody knows is not met, and the request is answered', async () => {
  const raw = await server.raw(
    `${head(`${json}\r\nexpect: wonders\r\nconnection: close\r\ncontent-length: 14`)}{"prompt":"x"}`,
  );
  expect(raw).toMatch(/^HTTP\/1\.1 200 /);
});

describe('S4: who is slow is cut', () => {
  it('headers that never end', async () => {
    const startMs = Date.now();
    const raw = await impatient.raw('GET /health HTTP/1.1\r\nhost: loc');
    expect(raw).toMatch(/^HTTP\/1\.1 408 /);
    expect(errorIn(raw).code).toBe('request_timeout');
    expect(Date.now() - startMs).toBeLessThan(20_000);
  });

  it('a body that comes byte by byte', async () => {
    const socket = await impatient.socket();
    socket.write(head(`${json}\r\ncontent-length: 1000`));
    const drip = setInterval(() => socket.write('x'), 50);
    const raw = await readAll(socket);
    clearInterval(drip);
    expect(raw).toMatch(/^HTTP\/1\.1 408 |^$/);
  });

  it('a connection without requests', async () => {
    const socket = await impatient.socket();
    socket.write('GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
    const startMs = Date.now();
    expect(await readAll(socket)).toMatch(/^HTTP\/1\.1 200 /);
    expect(Date.now() - startMs).toBeLessThan(20_000);
  });

  it('a reader that never reads, while others go on', async () => {
    const body = JSON.stringify({ model: 'scripted', messages: [{ role: 'user', content: 'x' }], stream: true });
    const stalled = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const socket = await server.socket();
        socket.pause();
        socket.write(`${head(`${json}\r\ncontent-length: ${body.length}`, '/v1/chat/completions')}${body}`);
        return socket;
      }),
    );
    await until(() => server.model.requests.length === 4);
    expect((await server.post('/v1/tokenize', { prompt: 'abc' })).json.count).toBe(3);
    // Each would get 20 MB. What the kernel takes is less than that.
    await until(() => server.model.metrics().running === 0, 50_000);
    expect(server.model.pagesInUse).toBe(0);
    for (const socket of stalled) socket.destroy();
  });
});

it('an answer that nobody takes is let go; a slow one is not', () => {
  jest.useFakeTimers();
  try {
    const socket = { writableLength: 300 };
    const response = Object.assign(new EventEmitter(), { socket, destroy: jest.fn() });
    destroyWhenStalled(response as unknown as ServerResponse, 1_000);
    for (; socket.writableLength > 100; socket.writableLength -= 50) jest.advanceTimersByTime(1_000);
    expect(response.destroy).not.toHaveBeenCalled();
    jest.advanceTimersByTime(2_000);
    expect(response.destroy).toHaveBeenCalled();
    response.emit('close');
    expect(jest.getTimerCount()).toBe(0);
  } finally {
    jest.useRealTimers();
  }
});

it('a request has a deadline, whole or in a stream', async () => {
  await using slow = await TestServer.start({ promptMs: 30_000 }, { limits: { requestMs: 100 } });
  const { status, json: body, headers } = await slow.chat('x');
  expect([status, body.error.code, headers.get('x-should-retry')]).toEqual([504, 'request_timeout', 'false']);
  await until(() => slow.model.pagesInUse === 0);
  await using begun = await TestServer.start({ tokenMs: 40 }, { limits: { requestMs: 2_000 } });
  const { text } = await begun.chat('x', { stream: true, ignore_eos: true, max_tokens: 1000 });
  expect(text).toMatch(
    /data: \{"error":\{"message":"[^"]*longer than is allowed","type":"server_error","param":null,"code":"request_timeout"\}\}\n\n$/,
  );
});

it('pings while there is nothing to say, and an error can still be an ordinary answer before', async () => {
  await using slow = await TestServer.start({ promptMs: 120 }, { limits: { pingMs: 25 } });
  const { text } = await slow.chat('x', { stream: true });
  expect(text).toMatch(/^(: ping\n\n){2,5}data: \{"id"/);
  await using failing = await TestServer.start({ failWhen: () => true });
  const refused = await failing.chat('x', { stream: true });
  expect([refused.status, refused.json.error.type]).toEqual([500, 'server_error']);
});

it('more connections than allowed are not taken', async () => {
  await using few = await TestServer.start({}, { limits: { connections: 3 } });
  const open = await Promise.all(Array.from({ length: 3 }, () => few.socket()));
  expect(await few.raw('GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n')).toBe('');
  for (const socket of open) socket.destroy();
  await until(() => open.every(({ destroyed }) => destroyed));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect((await few.get('/health')).status).toBe(200);
});
