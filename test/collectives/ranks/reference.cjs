// Collectives by the book: what each rank must hold, from what all ranks hold. Sums in f32 (f64 for f64) from rank 0 up,
// scaled, rounded once. Inputs and results are packed arrays, 16-bit floats as their bits.
const { core } = require('./rank.cjs');

const { packNumbers, unpackNumbers } = core;

/** One element of the sum over ranks. */
function sumAt(wide, columns, i, scale) {
  let sum = columns[0][i];
  for (let q = 1; q < columns.length; q++) sum = wide ? sum + columns[q][i] : Math.fround(sum + columns[q][i]);
  return wide ? sum * scale : Math.fround(sum * Math.fround(scale));
}

/** The sum of elements [begin, end) of every rank's input. */
function sumOf(inputs, dtype, outDType, [begin, end], { scale = 1, before }) {
  const wide = dtype === 'f64';
  const columns = inputs.map((input) => unpackNumbers(dtype, input.subarray(begin, end)));
  const old = before && unpackNumbers(outDType, before);
  const sums = new Float64Array(end - begin);
  for (let i = 0; i < sums.length; i++) {
    const sum = sumAt(wide, columns, i, scale);
    const total = old ? old[i] + sum : sum;
    sums[i] = wide ? total : Math.fround(total);
  }
  return packNumbers(outDType, sums);
}

const slice = (array, r, n) => array.slice(r * n, (r + 1) * n);

function concat(parts) {
  const all = new parts[0].constructor(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** The result of `op` on `rank`; `before` is what its out held, for accumulate. */
function expected(op, inputs, rank, before) {
  const N = inputs.length;
  const n = inputs[0].length;
  switch (op.primitive) {
    case 'allReduce':
      return sumOf(inputs, op.dtype, op.outDType, [0, n], { scale: op.scale });
    case 'reduceScatter': {
      const options = { scale: op.scale, before: op.accumulate ? before : undefined };
      return sumOf(inputs, op.dtype, op.outDType, [(rank * n) / N, ((rank + 1) * n) / N], options);
    }
    case 'allGather':
      return concat(inputs);
    case 'broadcast':
      return inputs[op.root];
    case 'allToAll':
      return concat(inputs.map((input) => slice(input, rank, n / N)));
    case 'ring':
      return inputs[(rank + N - 1) % N];
  }
}

const roundings = { f32: 2 ** -24, bf16: 2 ** -8, f16: 2 ** -11, f64: 2 ** -53 };

/**
 * How far a sum is from the expected one, in parts of what N additions in any order may be off when each is rounded to
 * the dtype of the tensor; NaN for what is no number.
 */
function worstError(op, inputs, rank, before, want, bytes) {
  const N = inputs.length;
  const n = op.primitive === 'reduceScatter' ? inputs[0].length / N : inputs[0].length;
  const from = op.primitive === 'reduceScatter' ? rank * n : 0;
  const columns = inputs.map((input) => unpackNumbers(op.dtype, input.subarray(from, from + n)));
  const wanted = unpackNumbers(op.outDType, want);
  const copy = bytes.slice();
  const got = unpackNumbers(op.outDType, new want.constructor(copy.buffer, copy.byteOffset, want.length));
  const old = op.accumulate ? unpackNumbers(op.outDType, before) : undefined;
  let worst = 0;
  for (let i = 0; i < n; i++) {
    const size = columns.reduce((sum, column) => sum + Math.abs(column[i]), 0) * Math.abs(op.scale);
    // The sum's additions and the scale; then the addition to what was there and the result's own rounding.
    const bound = (N + 1) * roundings[op.dtype] * size + 3 * roundings[op.outDType] * (size + Math.abs(old?.[i] ?? 0));
    const error = Math.abs(got[i] - wanted[i]);
    worst = Math.max(worst, error === 0 ? 0 : error / bound);
  }
  return worst;
}

module.exports = { expected, worstError };
