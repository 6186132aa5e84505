/** The optimizer of a DeepSpeed config: its type, the keys that the type takes, and their defaults. */
import { formatValue, type ProblemList } from './config-error';
import { unbuiltOptimizers } from './deepspeed-keys';
import type { RawDeepSpeed } from './deepspeed-schema';
import { nearestName } from './nearest-name';

/** What Adam and LAMB share: two moments. */
interface TwoMoments {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  readonly biasCorrection: boolean;
}

/** Adam's settings, complete. */
export interface AdamConfig extends TwoMoments {
  readonly type: 'Adam';
  /** Decay weights directly (AdamW) or through the gradient (L2). */
  readonly decoupledWeightDecay: boolean;
}

/** LAMB's: Adam's direction times the ratio of norms of each parameter, held between two bounds. */
export interface LambConfig extends TwoMoments {
  readonly type: 'Lamb';
  readonly minCoefficient: number;
  readonly maxCoefficient: number;
}

/** Lion's: one moment, and steps of one size. */
export interface LionConfig {
  readonly type: 'Lion';
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly weightDecay: number;
}

export type OptimizerConfig = AdamConfig | LambConfig | LionConfig;

type RawParams = NonNullable<NonNullable<RawDeepSpeed['optimizer']>['params']>;

const adamKeys = ['lr', 'betas', 'eps', 'weight_decay', 'bias_correction', 'adam_w_mode'] as const;

/** The built types, and which of the schema's keys each takes. */
const keysOf = {
  Adam: adamKeys,
  AdamW: adamKeys,
  Lamb: ['lr', 'betas', 'eps', 'weight_decay', 'bias_correction', 'max_coeff', 'min_coeff'],
  Lion: ['lr', 'betas', 'weight_decay'],
} as const satisfies Record<string, readonly (keyof RawParams)[]>;

type OptimizerType = keyof typeof keysOf;

const builtTypes = Object.keys(keysOf) as OptimizerType[];

/** Resolves the section `optimizer`; null when a problem was noted. For a plan it may be absent: then it is AdamW. */
export function resolveOptimizer(
  raw: RawDeepSpeed['optimizer'],
  purpose: 'train' | 'plan',
  problems: ProblemList,
): OptimizerConfig | null {
  if (raw === undefined && purpose === 'train') {
    if (problems.touches('optimizer')) return null;
    const hint = 'Add "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}.';
    problems.add(['optimizer'], { kind: 'missing', expected: 'an optimizer', found: 'nothing', hint });
    return null;
  }
  const type = resolveType(raw?.type ?? (raw === undefined ? 'AdamW' : undefined), problems);
  if (type === null) return null;
  const params = raw?.params ?? {};
  checkParams(type, params, problems.inside('optimizer', 'params'));
  const [beta1, beta2] = params.betas ?? (type === 'Lion' ? [0.9, 0.99] : [0.9, 0.999]);
  const common = { lr: params.lr ?? 1e-3, beta1, beta2, weightDecay: params.weight_decay ?? 0 };
  if (type === 'Lion') return { type, ...common };
  const corrected = { ...common, eps: params.eps ?? 1e-8, biasCorrection: params.bias_correction ?? true };
  if (type === 'Lamb')
    return { type, ...corrected, minCoefficient: params.min_coeff ?? 0.01, maxCoefficient: params.max_coeff ?? 10 };
  return { type: 'Adam', ...corrected, decoupledWeightDecay: params.adam_w_mode ?? true };
}

/** What the schema cannot say: keys of another type, and values that exclude each other. */
function checkParams(type: OptimizerType, params: RawParams, problems: ProblemList): void {
  for (const key of Object.keys(params) as (keyof RawParams)[]) {
    const takes: readonly string[] = keysOf[type];
    if (takes.includes(key)) continue;
    const owners = builtTypes.filter((other) => (keysOf[other] as readonly string[]).includes(key));
    problems.add([key], {
      kind: 'conflict',
      expected: `a key of ${type}: ${takes.join(', ')}`,
      found: `one of ${owners.join(', ')}`,
      hint: 'Remove it.',
      at: 'key',
    });
  }
  if (type === 'AdamW' && params.adam_w_mode === false)
    problems.add(['adam_w_mode'], {
      kind: 'conflict',
      expected: 'true for type AdamW',
      found: 'false',
      hint: 'DeepSpeed ignores it there. Write "type": "Adam" for L2 decay through the gradient, or remove this key.',
    });
  const { min_coeff = 0.01, max_coeff = 10 } = params;
  if (type === 'Lamb' && min_coeff > max_coeff && !problems.touches('min_coeff') && !problems.touches('max_coeff'))
    problems.add([params.min_coeff === undefined ? 'max_coeff' : 'min_coeff'], {
      kind: 'conflict',
      expected: 'min_coeff <= max_coeff',
      found: `${min_coeff} and ${max_coeff}`,
      hint: 'They are the bounds of one ratio.',
    });
}

function resolveType(type: string | undefined, problems: ProblemList): OptimizerType | null {
  const path = ['optimizer', 'type'];
  const names = builtTypes.map((name) => `"${name}"`);
  const expected = `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
  if (type === undefined) {
    if (problems.touches(...path)) return null;
    problems.add(path, { kind: 'missing', expected, found: 'nothing', hint: 'Add "type": "AdamW".' });
    return null;
  }
  const built = builtTypes.find((name) => name.toLowerCase() === type.toLowerCase());
  if (built !== undefined) return built;
  const parts = { expected, found: formatValue(type) };
  if (unbuiltOptimizers.some((name) => name.toLowerCase() === type.toLowerCase())) {
    const hint = 'DeepSpeed optimizer, not built yet. Use AdamW.';
    problems.add(path, { ...parts, kind: 'not-built', hint, at: 'value' });
    return null;
  }
  const nearest = nearestName(type, builtTypes);
  const hint = nearest === null ? 'Use AdamW.' : `Did you mean "${nearest}"?`;
  problems.add(path, { ...parts, kind: 'value', nearest, hint });
  return null;
}
