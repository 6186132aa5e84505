/** The two halves of a transformer block, alone, against the tensors that the reference has between them. */
import { alibiSlopes, type DeviceName, layerNorm, linear, liveTensors, scope, Tensor } from '@ds/core-native';
import { type GoldenModel, goldenModels, readGoldenTensors } from '../../../../test/support/golden';
import { type HeldBloom, holdBloom, largestDifference } from '../../../../test/support/golden-bloom';
import { attentionBlock } from './attention-block';
import { mlpBlock } from './mlp-block';

const devices: DeviceName[] = ['cpu', 'ref'];
const cases = devices.flatMap((device) => goldenModels.map((model) => [device, model] as const));

describe.each(cases)('the blocks on %s with the weights of %s', (device: DeviceName, name: GoldenModel) => {
  const tensors = readGoldenTensors(name, 'golden.safetensors');
  const before = liveTensors();
  let bloom: HeldBloom;
  beforeAll(() => {
    bloom = holdBloom(name, { device });
  });
  afterAll(() => {
    bloom[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });

  const golden = (stage: string) => tensors.get(`prompt0.${stage}`)!;
  const upload = (stage: string) => Tensor.from(golden(stage).values, golden(stage).shape, { device });
  const parameter = (parameterName: string) => bloom.storage.parameter(parameterName);
  const layer = (at: string) => ({ weight: parameter(`${at}.weight`), bias: parameter(`${at}.bias`) });
  const normOf = (at: string) => ({ ...layer(at), eps: bloom.model.config.layerNormEpsilon });
  const expectStage = async (stage: string, x: Tensor) => {
    using result = x;
    const { shape, values } = golden(stage);
    expect(result.shape).toEqual(shape);
    expect(largestDifference(await result.numbers(), values)).toBeLessThan(1e-5 * Math.max(...values.map(Math.abs)));
  };
  /** Block i takes what the one before gave, or the embedding's norm. */
  const inputOf = (i: number) => (i === 0 ? 'word_embeddings_layernorm' : `h.${i - 1}`);
  const attentionParameters = (i: number) => ({
    norm: normOf(`h.${i}.input_layernorm`),
    queryKeyValue: layer(`h.${i}.self_attention.query_key_value`),
    dense: layer(`h.${i}.self_attention.dense`),
    heads: bloom.model.config.heads,
    residualAfterNorm: false,
  });
  const slopes = () => Tensor.from(alibiSlopes(bloom.model.config.heads), [bloom.model.config.heads], { device });

  it.each([0, 1])('gives the attention half of block %i', (i) =>
    expectStage(
      `h.${i}.self_attention`,
      scope(() => attentionBlock(upload(inputOf(i)), attentionParameters(i), { batch: 1, slopes: slopes() })),
    ),
  );

  it.each([0, 1])('gives the feed-forward half of block %i', (i) =>
    expectStage(
      `h.${i}`,
      scope(() =>
        mlpBlock(upload(`h.${i}.self_attention`), {
          norm: normOf(`h.${i}.post_attention_layernorm`),
          up: layer(`h.${i}.mlp.dense_h_to_4h`),
          down: layer(`h.${i}.mlp.dense_4h_to_h`),
          residualAfterNorm: false,
        }),
      ),
    ),
  );

  it.each([0, 1])('gives norms, fused projection and GELU of block %i', async (i) => {
    const apply = (from: string, at: string, gelu = false) => {
      const { weight, bias } = layer(at);
      return scope(() => linear(upload(from), weight.value, { bias: bias.value, ...(gelu ? { gelu } : {}) }).y);
    };
    const normalize = (from: string, at: string) => {
      const { weight, bias, eps } = normOf(at);
      return scope(() => layerNorm(upload(from), weight.value, bias.value, { eps }).y);
    };
    const h = `h.${i}`;
    await expectStage(`${h}.input_layernorm`, normalize(inputOf(i), `${h}.input_layernorm`));
    await expectStage(
      `${h}.self_attention.query_key_value`,
      apply(`${h}.input_layernorm`, `${h}.self_attention.query_key_value`),
    );
    await expectStage(
      `${h}.post_attention_layernorm`,
      normalize(`${h}.self_attention`, `${h}.post_attention_layernorm`),
    );
    await expectStage(`${h}.mlp.dense_h_to_4h`, apply(`${h}.post_attention_layernorm`, `${h}.mlp.dense_h_to_4h`));
    await expectStage(`${h}.mlp.gelu`, apply(`${h}.post_attention_layernorm`, `${h}.mlp.dense_h_to_4h`, true));
  });
});
