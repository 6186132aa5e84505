/** The forward pass against golden numbers: logits of every position, hidden states, padding, losses. */
import { type DeviceName, liveTensors, scope, Tensor } from '@ds/core-native';
import { computingDevices } from '../../../../../test/support/devices';
import { type GoldenModel, goldenModels, readGolden, readGoldenTensors } from '../../../../../test/support/golden';
import { type HeldBloom, holdBloom, largestDifference, norm } from '../../../../../test/support/golden-bloom';

// The plain loops of `ref` and the emulated GPU are slow where other work shares the machine.
jest.setTimeout(240_000);

const cases = computingDevices.flatMap((device) => goldenModels.map((model) => [device, model] as const));

/** Logits [B*T, V] of a batch without a cache. */
async function logitsOf(bloom: HeldBloom, rows: number[][], mask?: number[][]): Promise<Float64Array> {
  const device = bloom.storage.device;
  using logits = scope(() => {
    const maskTensor = mask && Tensor.from(mask.flat(), [mask.length, mask[0]!.length], { dtype: 'u8', device });
    const batch = { ids: bloom.ids(rows), ...(maskTensor ? { mask: maskTensor } : {}) };
    return bloom.model.logits(bloom.model.hidden(batch));
  });
  return logits.numbers();
}

describe.each(cases)('BLOOM on %s with the weights of %s', (device: DeviceName, name: GoldenModel) => {
  const golden = readGolden(name);
  const tensors = readGoldenTensors(name, 'golden.safetensors');
  const V = 512;
  const before = liveTensors();
  let bloom: HeldBloom;
  beforeAll(() => {
    bloom = holdBloom(name, { device });
  });
  afterAll(() => {
    bloom[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });

  it('has as many parameters as the reference', () => {
    expect(bloom.model.parameters.reduce((sum, { numel }) => sum + numel, 0)).toBe(golden.params);
  });

  it('gives the logits of all positions of 8 prompts within 1e-4', async () => {
    for (const [p, prompt] of golden.prompts.entries()) {
      const logits = await logitsOf(bloom, [prompt.input_ids]);
      expect(largestDifference(logits, tensors.get(`prompt${p}.logits`)!.values)).toBeLessThan(1e-4);
      expect(largestDifference(logits.subarray(-V), prompt.last_logits)).toBeLessThan(1e-4);
    }
  });

  it('gives the hidden states of every stage of prompt 0 within 1e-5', async () => {
    const stages: [string, Tensor][] = [];
    using _ = scope(() =>
      bloom.model.hidden({ ids: bloom.ids([golden.prompts[0]!.input_ids]) }, (stage, x) =>
        stages.push([stage, x.retain()]),
      ),
    );
    expect(stages.map(([stage]) => stage)).toEqual(golden.prompts[0]!.hidden.map((h) => h.name));
    for (const [i, [stage, tensor]] of stages.entries()) {
      using x = tensor;
      const values = await x.numbers();
      const wanted = tensors.get(`prompt0.${stage}`)!.values;
      expect(largestDifference(values, wanted)).toBeLessThan(1e-5 * Math.max(...wanted.map(Math.abs)));
      const { mean, abs_sum, l2 } = golden.prompts[0]!.hidden[i]!;
      expect(Math.abs(values.reduce((a, b) => a + b, 0) / values.length - mean)).toBeLessThan(1e-6);
      expect(Math.abs(values.reduce((a, b) => a + Math.abs(b), 0) / abs_sum - 1)).toBeLessThan(1e-5);
      expect(Math.abs(norm(values) / l2 - 1)).toBeLessThan(1e-5);
    }
  });

  it.each(['left', 'right'] as const)('gives the same logits when padded on the %s', async (side) => {
    const { input_ids, attention_mask } = golden.padding[side];
    const logits = await logitsOf(bloom, input_ids, attention_mask);
    const T = input_ids[0]!.length;
    golden.prompts.forEach((prompt, b) => {
      const places = attention_mask[b]!.flatMap((real, t) => (real ? [b * T + t] : []));
      const real = places.flatMap((place) => Array.from(logits.subarray(place * V, (place + 1) * V)));
      expect(places).toHaveLength(prompt.input_ids.length);
      expect(largestDifference(real, tensors.get(`prompt${b}.logits`)!.values)).toBeLessThan(1e-4);
    });
  });

  it('gives the losses of 8 prompts within 1e-5 and their sums within 1e-4', async () => {
    for (const { input_ids, loss, sum_logprob } of golden.prompts) {
      const targets = input_ids.slice(1);
      using losses = scope(() =>
        bloom.model.loss({ ids: bloom.ids([input_ids.slice(0, -1)]), targets: bloom.ids([targets]), scale: 1 }),
      );
      const sum = (await losses.numbers()).reduce((a, b) => a + b, 0);
      expect(Math.abs(sum / targets.length - loss)).toBeLessThan(1e-5);
      expect(Math.abs(sum + sum_logprob)).toBeLessThan(1e-4);
    }
  });

  it('takes the residual behind the norm where the config says so', async () => {
    using other = holdBloom(name, { device, overrides: { apply_residual_connection_post_layernorm: true } });
    const { prompt, last_logits } = golden.apply_residual_connection_post_layernorm;
    const logits = await logitsOf(other, [golden.prompts[prompt]!.input_ids]);
    expect(largestDifference(logits.subarray(-V), last_logits)).toBeLessThan(1e-4);
  });
});
