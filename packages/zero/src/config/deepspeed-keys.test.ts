import { ConfigError } from './config-error';
import { parseDeepSpeedConfig } from './deepspeed-config';
import { keyRules } from './deepspeed-keys';
import { deepSpeedJsonSchema, deepSpeedKeys } from './deepspeed-schema';

const minimal = { train_batch_size: 8, optimizer: { type: 'AdamW' } };

function problemsOf(config: object) {
  try {
    parseDeepSpeedConfig(config, { world: 1 });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

/** Puts `value` at a dotted path of a config. */
function withKey(path: string, value: unknown): object {
  const config = structuredClone(minimal) as Record<string, unknown>;
  const keys = path.split('.');
  let at = config;
  for (const key of keys.slice(0, -1)) {
    at[key] ??= {};
    at = at[key] as Record<string, unknown>;
  }
  at[keys.at(-1)!] = value;
  return config;
}

describe('keys that take no decision', () => {
  const rules = [...keyRules.values()];

  it('are no built keys', () => {
    for (const { path } of rules) {
      const dot = path.lastIndexOf('.');
      expect(deepSpeedKeys[path.slice(0, Math.max(0, dot))] ?? []).not.toContain(path.slice(dot + 1));
    }
  });

  /** Values of which each key must take at least one as off and refuse at least one as on. */
  const values = [
    null,
    false,
    true,
    0,
    1,
    -1,
    1e9,
    7,
    'auto',
    'fp32',
    'mean',
    'word',
    {},
    { enabled: true },
    { enabled: false },
    { device: 'cpu' },
    { autotp_size: 8 },
    { x: true },
  ];

  it.each(rules.map((rule) => [rule.path, rule] as const))(
    '%s is named when it is on, and passes when it is off',
    (path, rule) => {
      const outcomes = values.map((value) => {
        const problems = problemsOf(withKey(path, value));
        expect(problems.length).toBe(rule.accepts(value) ? 0 : 1);
        for (const problem of problems) {
          expect(problem).toMatchObject({
            path,
            kind: rule.kind === 'not-built' ? 'not-built' : 'value',
            expected: rule.expected,
          });
          expect(problem.message.includes('DeepSpeed key, not built yet.')).toBe(rule.kind === 'not-built');
        }
        return problems.length;
      });
      expect(outcomes).toContain(1);
      if (!rule.expected.startsWith('no such key')) expect(outcomes).toContain(0);
    },
  );

  it('let a file pass that turns them off by the way', () => {
    const off = {
      ...minimal,
      fp16: { enabled: false, loss_scale: 0 },
      amp: { enabled: false },
      prescale_gradients: false,
      gradient_predivide_factor: 1.0,
      sparse_gradients: false,
      zero_allow_untested_optimizer: true,
      activation_checkpointing: { partition_activations: false, number_checkpoints: null, profile: false },
      flops_profiler: { enabled: false, profile_step: 1 },
      tensorboard: { enabled: false },
      zero_optimization: {
        stage: 2,
        contiguous_gradients: true,
        reduce_scatter: true,
        allgather_partitions: true,
        sub_group_size: 1e9,
        offload_optimizer: { device: 'none' },
        stage3_gather_16bit_weights_on_model_save: true,
      },
    };
    expect(problemsOf(off)).toEqual([]);
  });
});

describe('the JSON Schema', () => {
  it('describes every built key', () => {
    const schema = deepSpeedJsonSchema() as {
      properties: Record<string, { description?: string }>;
      additionalProperties: boolean;
    };
    expect(Object.keys(schema.properties)).toEqual(deepSpeedKeys['']);
    expect(schema.additionalProperties).toBe(false);
    for (const property of Object.values(schema.properties)) expect(property.description).toMatch(/\.$/);
  });
});
