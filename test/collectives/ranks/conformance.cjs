// Random calls of every primitive, each compared bit for bit with the reference: dtypes, odd and empty sizes, in place
// and apart, wider results, scales, accumulation. Memory around a result must stay as it was. `unordered`: sums may be in
// any order, rounded at every step.
const { main, random } = require('./rank.cjs');
const { expected, worstError } = require('./reference.cjs');

const floats = ['f32', 'bf16', 'f16', 'f64'];
const all = [...floats, 'i32', 'u8'];
const GUARD = 5;

/** Mostly small, sometimes around the sizes at which the way of moving changes, seldom large. */
function drawSize(draw) {
  const kind = draw();
  if (kind < 0.1) return 0;
  if (kind < 0.2) return 1;
  if (kind < 0.9) return 1 + Math.floor(draw() * 300);
  if (kind < 0.99) return 1000 + Math.floor(draw() * 9000);
  return 60000 + Math.floor(draw() * 90000);
}

function drawOp(draw, N) {
  const pick = (list) => list[Math.floor(draw() * list.length)];
  const primitives = ['allReduce', 'reduceScatter', 'allGather', 'broadcast', 'allToAll', ...(N > 1 ? ['ring'] : [])];
  const primitive = pick(primitives);
  const sums = primitive === 'allReduce' || primitive === 'reduceScatter';
  const dtype = pick(sums ? floats : all);
  const wider = sums && (dtype === 'bf16' || dtype === 'f16') && draw() < 0.5;
  return {
    primitive,
    dtype,
    outDType: wider ? 'f32' : dtype,
    n: drawSize(draw) * (primitive === 'reduceScatter' || primitive === 'allToAll' ? N : 1),
    inPlace: draw() < 0.5 && !wider && primitive !== 'allToAll' && primitive !== 'ring',
    scale: sums && draw() < 0.5 ? pick([0.5, 1 / 3, 1 / N, -2]) : 1,
    accumulate: primitive === 'reduceScatter' && draw() < 0.4,
    root: Math.floor(draw() * N),
    seed: Math.floor(draw() * 2 ** 31),
  };
}

/** What a rank puts in: values of many magnitudes, both signs, and negative zeros. 16-bit floats are drawn as bits. */
function inputOf(core, { dtype, n, seed }, rank) {
  const draw = random(seed + rank);
  const packed = core.packNumbers(dtype, { length: 0 });
  const values = new packed.constructor(n);
  for (let i = 0; i < n; i++) {
    const x = draw();
    const bits = Math.floor(x * 2 ** 32);
    if (dtype === 'i32' || dtype === 'u8') values[i] = bits;
    else if (bits % 16 === 0) values[i] = dtype === 'bf16' || dtype === 'f16' ? 0x8000 : -0;
    // sign, exponents -6 to 9, fraction
    else if (dtype === 'bf16') values[i] = (bits & 0x807f) | ((121 + ((bits >>> 16) & 15)) << 7);
    else if (dtype === 'f16') values[i] = (bits & 0x83ff) | ((9 + ((bits >>> 16) & 15)) << 10);
    else values[i] = (x - 0.5) * 2 ** ((bits & 15) - 6);
  }
  return values;
}

/** A tensor between two stretches of guards, whose bytes `intact` looks at afterwards. */
function guarded(core, packed, dtype, device) {
  const n = packed.length;
  const whole = core.Tensor.empty([n + 2 * GUARD], { dtype, device });
  const bytes = new Uint8Array((n + 2 * GUARD) * core.dtypeBytes[dtype]).fill(0x5a);
  bytes.set(new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength), GUARD * core.dtypeBytes[dtype]);
  whole.writeBytes(bytes);
  return { whole, tensor: whole.view([n], GUARD), n, size: core.dtypeBytes[dtype] };
}

async function resultOf({ whole, n, size }) {
  const bytes = new Uint8Array((await whole.read()).buffer);
  const guards = [...bytes.subarray(0, GUARD * size), ...bytes.subarray((GUARD + n) * size)];
  return { bytes: bytes.subarray(GUARD * size, (GUARD + n) * size), intact: guards.every((b) => b === 0x5a) };
}

/** Makes the call; gives where its result is and what that held before. */
function call(core, group, op, input, device) {
  const { rank, size: N } = group;
  const { primitive, dtype, outDType, n, inPlace, scale, accumulate, root } = op;
  const tag = `op ${op.seed}`;
  const outLength = { reduceScatter: n / N, allGather: n * N }[primitive] ?? n;
  const before = inputOf(core, { dtype: outDType, n: outLength, seed: op.seed }, 1000 + rank);
  if (primitive === 'allGather' && inPlace) {
    before.set(input, rank * n);
    const full = guarded(core, before, dtype, device);
    group.allGather(full.tensor, full.tensor.view([n], rank * n), { tag });
    return { out: full };
  }
  const from = guarded(core, input, dtype, device);
  if (primitive === 'broadcast') {
    group.broadcast(from.tensor, root, { tag });
    return { out: from };
  }
  if (primitive === 'reduceScatter' && inPlace) {
    const shard = from.tensor.view([n / N], (rank * n) / N);
    group.reduceScatter(shard, from.tensor, { scale, accumulate, tag });
    return { shard, before: input.slice((rank * n) / N, ((rank + 1) * n) / N) };
  }
  const out = inPlace ? from : guarded(core, before, outDType, device);
  if (primitive === 'allReduce') group.allReduce(out.tensor, from.tensor, { scale, tag });
  if (primitive === 'reduceScatter') group.reduceScatter(out.tensor, from.tensor, { scale, accumulate, tag });
  if (primitive === 'allGather') group.allGather(out.tensor, from.tensor, { tag });
  if (primitive === 'allToAll') group.allToAll(out.tensor, from.tensor, { tag });
  if (primitive === 'ring') {
    const send = () => group.send(from.tensor, (rank + 1) % N, { tag });
    const receive = () => group.recv(out.tensor, (rank + N - 1) % N, { tag });
    // A message is over when it has been taken, so somebody has to take first.
    for (const step of rank === 0 ? [receive, send] : [send, receive]) step();
  }
  return { out, before };
}

main(async ({ group, args, core }) => {
  const { seed, count, device = 'cpu', unordered = false } = args;
  const draw = random(seed);
  const wrong = [];
  for (let i = 0; i < count; i++) {
    const op = drawOp(draw, group.size);
    const inputs = Array.from({ length: group.size }, (_, q) => inputOf(core, op, q));
    const tensors = core.scope(() => {
      const made = call(core, group, op, inputs[group.rank], device);
      return { ...made, ...(made.out ? { out: { ...made.out } } : {}) };
    });
    const want = expected(op, inputs, group.rank, tensors.before);
    const got = tensors.shard
      ? { bytes: new Uint8Array((await tensors.shard.read()).buffer), intact: true }
      : await resultOf(tensors.out);
    const sums = op.primitive === 'allReduce' || op.primitive === 'reduceScatter';
    const same =
      unordered && sums
        ? worstError(op, inputs, group.rank, tensors.before, want, got.bytes) <= 1
        : Buffer.from(want.buffer, want.byteOffset, want.byteLength).equals(got.bytes);
    if (!same || !got.intact) wrong.push({ i, same, intact: got.intact, op });
    for (const tensor of [tensors.shard, tensors.out?.whole, tensors.out?.tensor]) tensor?.dispose();
  }
  return { wrong: wrong.slice(0, 5), transport: group.transport, live: core.liveTensors() };
});
