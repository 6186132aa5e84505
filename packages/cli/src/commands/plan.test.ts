/** ds plan: the formulas of the paper, the engine's own figures, and the JSON that scripts rely on. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { device, liveTensors } from '@ds/core-native';
import { bloomParameterCount, bloomPresets } from '@ds/nn';
import { printTable1Gigabytes, zeroTable1 } from '@ds/zero';
import { ds } from '../../test-support/ds';
import { planByRunning } from '../plan/null-run';
import { planConfig } from '../plan/predict';
import { findModel } from '../train/model';

// The addon counts for the whole process, and other test files may have run in it.
const liveBefore = liveTensors();

const folder = mkdtempSync(path.join(tmpdir(), 'ds-plan-'));
afterAll(() => rmSync(folder, { recursive: true }));

async function plan(...args: string[]) {
  const { stdout, exitCode } = await ds(['plan', ...args, '--json']);
  const lines = stdout.trim().split('\n');
  return { exitCode, lines, json: JSON.parse(lines[0]!) };
}

describe('ds plan --params', () => {
  it('reproduces Table 1 of the ZeRO paper to the last printed digit', async () => {
    for (const { world, params, stage, printed } of zeroTable1()) {
      const { json } = await plan('--params', String(params), '--world', String(world), '--stage', String(stage));
      expect(printTable1Gigabytes(json.per_rank.model_state_bytes)).toBe(printed);
    }
  });

  it('prints one object with the fields that scripts read', async () => {
    const { lines, json, exitCode } = await plan('--params', '7.5e9', '--world', '64', '--stage', '3');
    expect([exitCode, lines.length]).toEqual([0, 1]);
    expect(json).toMatchObject({
      world: 64,
      stage: 3,
      per_rank: {
        params_bytes: 234375000,
        grads_bytes: 234375000,
        optimizer_bytes: 1406250000,
        model_state_bytes: 1875000000,
        activation_bytes: null,
        peak_bytes: 1875000000,
      },
      traffic: { elements_sent_per_step: 3 * (63 / 64) * 7.5e9, bytes_sent_per_step: 6 * (63 / 64) * 7.5e9 },
    });
  });

  it('takes the bytes of a parameter from a config', async () => {
    const config = path.join(folder, 'fp32.json');
    writeFileSync(config, '{ /* all fp32 */ "zero_optimization": { "stage": 1 } }');
    const { json } = await plan('--params', '1e6', '--world', '4', '--config', config);
    expect(json).toMatchObject({ stage: 1, per_rank: { params_bytes: 4e6, grads_bytes: 4e6, optimizer_bytes: 2e6 } });
    expect((await plan('--params', '1e6', '--world', '4', '--config', config, '--stage', '3')).json).toMatchObject({
      stage: 3,
      per_rank: { model_state_bytes: 4e6 },
    });
  });
});

describe('ds plan --model', () => {
  // 16Ψ, 4Ψ + 12Ψ/N, 2Ψ + 14Ψ/N, 16Ψ/N: ZeRO (2020), section 5, in bytes for N = 4.
  it.each([
    [0, 16, 2],
    [1, 4 + 12 / 4, 2],
    [2, 2 + 14 / 4, 2],
    [3, 16 / 4, 3],
  ])('at stage %i needs %f bytes a parameter and sends %i(N-1)/N elements', async (stage, bytes, sends) => {
    const psi = bloomParameterCount(bloomPresets['bloom-560m']!);
    const { json } = await plan('--model', 'bloom-560m', '--world', '4', '--stage', String(stage));
    expect(json).toMatchObject({ world: 4, stage, parameters: psi, basis: 'engine' });
    expect(json.per_rank.model_state_bytes / (bytes * psi)).toBeCloseTo(1, 3);
    expect(json.traffic.elements_sent_per_step / ((sends * 3 * psi) / 4)).toBeCloseTo(1, 4);
    expect(json.traffic.bytes_sent_per_step).toBe(2 * json.traffic.elements_sent_per_step);
    expect(json.per_rank.peak_bytes).toBeGreaterThan(json.per_rank.model_state_bytes);
    expect(json.per_rank.activation_bytes).toBeGreaterThan(0);
  });

  it.each([0, 3] as const)('draws a timeline at stage %i whose highest moment is the peak', async (stage) => {
    const config = planConfig({ world: 4, config: undefined, microBatch: 1 }, stage);
    const { timeline, peakBytes } = await planByRunning({
      model: findModel('bloom-560m'),
      config,
      sequenceLength: 128,
    });
    const totals = timeline.map(({ bytes }) => Object.values(bytes).reduce((sum, value) => sum + value, 0));
    expect(Math.max(...totals)).toBe(peakBytes);
    expect(timeline.map(({ at }) => at)).toEqual(expect.arrayContaining(['forward h.3', 'backward h.3', 'update h.3']));
  });

  it('books activations alike at every stage: buffers that come and go are not taken for them', async () => {
    const activations = async (stage: number) =>
      (await plan('--model', 'bloom-560m', '--world', '4', '--stage', String(stage))).json.per_rank.activation_bytes;
    expect(await activations(3)).toBe(await activations(0));
  });

  it('needs no more at a higher stage', async () => {
    const { json } = await plan('--model', 'bloom-560m', '--world', '4');
    const peaks = json.stages.map(({ peak_bytes }: { peak_bytes: number }) => peak_bytes);
    expect(peaks).toEqual([...peaks].sort((a: number, b: number) => b - a));
  });

  it('plans 176 billion parameters, and leaves nothing behind', async () => {
    const { json } = await plan('--model', 'bloom', '--world', '384', '--stage', '3');
    expect(json.parameters).toBe(176_247_271_424);
    expect(json.per_rank.model_state_bytes / ((16 * json.parameters) / 384)).toBeCloseTo(1, 3);
    expect(liveTensors()).toBe(liveBefore);
    expect(device('null').account().live).toBe(0);
  });

  it('plans sizes from a file, with gradients in fp32 and accumulation', async () => {
    const model = path.join(folder, 'config.json');
    writeFileSync(
      model,
      JSON.stringify({ model_type: 'bloom', vocab_size: 512, hidden_size: 64, n_layer: 2, n_head: 8 }),
    );
    const config = path.join(folder, 'ds.json');
    const batch = { train_micro_batch_size_per_gpu: 2, gradient_accumulation_steps: 3 };
    writeFileSync(config, JSON.stringify({ ...batch, bf16: { enabled: true }, zero_optimization: { stage: 2 } }));
    const args = ['--model', model, '--world', '2', '--config', config, '--sequence-length', '32'];
    const { json } = await plan(...args);
    const psi = 132_992;
    expect(json).toMatchObject({ stage: 2, parameters: psi, batch: { global: 12, micro: 2, accumulation: 3 } });
    // Memory comes in blocks of 256 bytes: two units end in the middle of one.
    expect(json.per_rank).toMatchObject({ params_bytes: 2 * psi + 2 * 128, grads_bytes: 2 * psi + 2 * 128 });
    // Three reductions of fp32 gradients, and one gather of bf16 weights.
    expect(json.traffic).toEqual({
      elements_sent_per_step: (4 * psi) / 2,
      bytes_sent_per_step: ((3 * 4 + 2) * psi) / 2,
    });
  });

  it('asks for a length where the model has none', async () => {
    const model = path.join(folder, 'config.json');
    const { exitCode, json } = await plan('--model', model, '--world', '2');
    expect([exitCode, json.error]).toEqual([2, expect.objectContaining({ hint: 'Add --sequence-length 2048.' })]);
  });

  it('names every problem of a config by its place', async () => {
    const config = path.join(folder, 'wrong.json');
    writeFileSync(config, '{\n  "zero_optimisation": { "stage": 3 }\n}');
    const { exitCode, json } = await plan('--model', 'bloom', '--config', config);
    expect([exitCode, json.error.code]).toEqual([2, 'CONFIG']);
    expect(json.error.hint).toContain(`${config}:2:3 zero_optimisation: expected a key of the DeepSpeed config`);
    expect(json.error.hint).toContain('Did you mean "zero_optimization"?');
  });

  it('shows people all stages side by side, and whether they fit here', async () => {
    const { stdout } = await ds(['plan', '--model', 'bloom-560m', '--world', '4', '--stage', '2']);
    expect(stdout).toContain('bloom-560m: 559 M parameters on 4 ranks; bf16 weights, bf16 gradients');
    expect(stdout).toMatch(/per rank +stage 0 +stage 1 +> stage 2 +stage 3\n/);
    expect(stdout).toMatch(/model states +8\.95 GB +3\.91 GB +3\.08 GB +2\.24 GB\n/);
    expect(stdout).toMatch(/4 ranks on this machine .* (fit from stage|do not fit)/);
  });
});
