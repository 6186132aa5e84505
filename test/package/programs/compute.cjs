// A layer norm on the cpu and on the specification: the binary loads, computes and agrees with itself.
const { device, layerNorm, scope, Tensor } = require('@ds/core-native');

async function layerNormOn(name) {
  const y = scope(() => {
    const x = Tensor.from([1, 2, 4, 8], [1, 4], { device: name });
    const weight = Tensor.from([1, 1, 1, 1], [4], { device: name });
    const bias = Tensor.from([0, 0, 0, 0], [4], { device: name });
    return layerNorm(x, weight, bias, { eps: 1e-5 }).y.retain();
  });
  const values = await y.numbers();
  y.dispose();
  await device(name).stream.join();
  return Array.from(values);
}

async function main() {
  // (x - 3.75) / sqrt(7.1875 + 1e-5)
  const expected = [-1.0257494, -0.6527496, 0.0932499, 1.5852491];
  for (const name of ['cpu', 'ref']) {
    const values = await layerNormOn(name);
    const wrong = values.some((value, i) => !(Math.abs(value - expected[i]) < 1e-5));
    if (values.length !== 4 || wrong) throw new Error(`layer norm on ${name}: ${values}, expected ${expected}`);
  }
}

main();
