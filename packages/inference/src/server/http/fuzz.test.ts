/** S1: damaged requests never hurt: each is answered in the shape of errors, or not at all, and the server goes on. */
import { chatBody, TestServer } from '../../../test-support/http-client';

/** DS_SOAK=1000000 runs as many. */
const COUNT = Number(process.env.DS_SOAK ?? 400);

/** mulberry32: the same damage in every run. */
function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

function damaged(bytes: Buffer, roll: (below: number) => number): Buffer {
  const copy = Buffer.from(bytes);
  for (let n = 1 + roll(4); n > 0; n--) {
    const at = roll(copy.length);
    const kind = roll(4);
    if (kind === 0) copy[at] = roll(256);
    else if (kind === 1) copy.copy(copy, at, roll(copy.length), roll(copy.length));
    else if (kind === 2) copy.fill(roll(256), at, Math.min(copy.length, at + roll(20)));
    else copy[at] = [0x22, 0x7b, 0x5b, 0x0d, 0x0a, 0x5c, 0x2c, 0x3a][roll(8)]!;
  }
  return roll(10) === 0 ? copy.subarray(0, roll(copy.length)) : copy;
}

it(`${COUNT} damaged requests, bytes and JSON`, async () => {
  await using server = await TestServer.start({}, { limits: { headersMs: 2_000, receiveMs: 2_000 } });
  const roll = dice(7);
  const body = JSON.stringify(
    chatBody('héllo 🙂', {
      temperature: 0.5,
      stop: ['x'],
      logit_bias: { 65: 1 },
      n: 2,
      stream_options: { include_usage: true },
      tools: [{ type: 'function', function: { name: 'f', parameters: {} } }],
    }),
  );
  const head = `POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  const seen = new Map<string, number>();
  const one = async (i: number): Promise<void> => {
    const bytes =
      i % 2 === 0
        ? damaged(Buffer.from(head + body), roll)
        : Buffer.concat([Buffer.from(head), damaged(Buffer.from(body), roll)]);
    const socket = await server.socket();
    let raw = '';
    socket.setEncoding('utf8').on('data', (data) => {
      raw += data;
    });
    socket.write(bytes);
    // Where the damage makes the server wait for more, there is no more.
    const enough = setTimeout(() => socket.end(), 300);
    await new Promise((done) => socket.on('close', done));
    clearTimeout(enough);
    const status = /^HTTP\/1\.1 (\d{3}) /.exec(raw)?.[1] ?? 'nothing';
    seen.set(status, (seen.get(status) ?? 0) + 1);
    expect(['200', '400', '403', '404', '405', '408', '413', '415', '431', 'nothing']).toContain(status);
    if (status === '200' || status === 'nothing') return;
    const { error } = JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4).split('HTTP/1.1 ')[0]!);
    expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code']);
    expect(error.message).not.toBe('');
  };
  for (let i = 0; i < COUNT; i += 20) await Promise.all(Array.from({ length: 20 }, (_, j) => one(i + j)));
  expect(server.faults).toEqual([]);
  expect(seen.get('400')).toBeGreaterThan(COUNT / 10);
  expect(seen.get('200')).toBeGreaterThan(0);
  expect((await server.chat('x')).status).toBe(200);
  expect(server.model.pagesInUse).toBe(0);
}, 3_600_000);
