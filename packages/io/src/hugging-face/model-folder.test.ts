import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DsError } from '@ds/core-native';
import { openModelFolder, openWeights } from './model-folder';

const golden = join(__dirname, '../../../../test/golden');
let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
});

/** Copies the sharded golden model to a fresh folder and lets `change` damage it. */
function damaged(change: (dir: string, index: { weight_map: Record<string, unknown> }) => void): string {
  const dir = join(folder, 'model');
  fs.cpSync(join(golden, 'bloom-tiny/sharded'), dir, { recursive: true });
  const path = join(dir, 'model.safetensors.index.json');
  const index = JSON.parse(fs.readFileSync(path, 'utf8'));
  change(dir, index);
  if (fs.existsSync(path)) fs.writeFileSync(path, JSON.stringify(index));
  return dir;
}

function refusal(path: string): DsError {
  try {
    openModelFolder(path).close();
  } catch (error) {
    if (DsError.is(error)) return error;
    throw error;
  }
  throw new Error(`${path} was accepted`);
}

describe('openModelFolder', () => {
  test('reads single and sharded weights to the same bytes', () => {
    using single = openModelFolder(join(golden, 'bloom-tiny'));
    using sharded = openModelFolder(join(golden, 'bloom-tiny/sharded'));
    expect(single.config.n_layer).toBe(2);
    expect(single.generationConfig?.eos_token_id).toBe(2);
    expect([single.hasTokenizer, sharded.hasTokenizer]).toEqual([true, false]);
    expect(single.weights.names.map((name) => name.replace('transformer.', '')).sort()).toEqual(
      [...sharded.weights.names].sort(),
    );
    for (const name of sharded.weights.names) {
      const a = single.weights.tensor(`transformer.${name}`);
      const b = sharded.weights.tensor(name);
      expect({ dtype: b.dtype, shape: b.shape }).toEqual({ dtype: a.dtype, shape: a.shape });
      expect(Buffer.compare(a.bytes, b.bytes)).toBe(0);
      const part = new Uint8Array(12);
      sharded.weights.readInto(name, part, 1, 3);
      expect([...part]).toEqual([...a.bytes.subarray(4, 16)]);
    }
    expect(() => sharded.weights.tensor('ln_f.weigth')).toThrow(
      /in 2 shards, none of that name. Did you mean "ln_f.weight"\?/,
    );
  });

  test('opens a safetensors file named directly', () => {
    using weights = openWeights(join(golden, 'bloom-tiny-h6/model.safetensors'));
    expect(weights.info('ln_f.bias').shape).toEqual([48]);
  });

  const cases: [title: string, dir: () => string, message: RegExp, code: string][] = [
    ['no such folder', () => join(folder, 'absent'), /to find the folder .*absent/, 'IO'],
    ['no config', () => damaged((dir) => fs.rmSync(join(dir, 'config.json'))), /config.json, got no such file/, 'IO'],
    [
      'config of another kind',
      () => damaged((dir) => fs.writeFileSync(join(dir, 'config.json'), '[]')),
      /a JSON object in .*config.json/,
      'FORMAT',
    ],
    [
      'config with a key twice',
      () => damaged((dir) => fs.writeFileSync(join(dir, 'config.json'), '{"n_head":8,"n_head":4}')),
      /config.json at character 12, got "n_head" twice/,
      'FORMAT',
    ],
    [
      'config of 5 MB',
      () => damaged((dir) => fs.writeFileSync(join(dir, 'config.json'), ' '.repeat(5e6))),
      /at most 4194304 bytes in/,
      'FORMAT',
    ],
    [
      'no weights',
      () => damaged((dir) => fs.rmSync(join(dir, 'model.safetensors.index.json'))),
      /model.safetensors or .*, got neither/,
      'IO',
    ],
    [
      'pickled weights only',
      () =>
        damaged((dir) => {
          fs.rmSync(join(dir, 'model.safetensors.index.json'));
          fs.writeFileSync(join(dir, 'pytorch_model.bin'), '');
        }),
      /got only pytorch_model.bin. Pickled weights can run code/,
      'UNSUPPORTED',
    ],
    [
      'a shard missing',
      () => damaged((dir) => fs.rmSync(join(dir, 'model_00002-of-00002.safetensors'))),
      /the shard model_00002-of-00002.safetensors/,
      'IO',
    ],
    [
      'a shard cut off',
      () => damaged((dir) => fs.truncateSync(join(dir, 'model_00002-of-00002.safetensors'), 9999)),
      /model_00002.*file is cut off/,
      'FORMAT',
    ],
    [
      'an index that misses a tensor',
      () => damaged((_dir, index) => delete index.weight_map['ln_f.bias']),
      /only tensors of .*"ln_f.bias", which the index puts in no shard/,
      'FORMAT',
    ],
    [
      'an index that invents a tensor',
      () =>
        damaged((_dir, index) => {
          index.weight_map.extra = 'model_00001-of-00002.safetensors';
        }),
      /tensor "extra" in .*where the index puts it/,
      'FORMAT',
    ],
    [
      'a tensor in the wrong shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = 'model_00001-of-00002.safetensors';
        }),
      /tensor "ln_f.bias" in .*model_00001/,
      'FORMAT',
    ],
    [
      'a path as shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = '../model.safetensors';
        }),
      /a path, not a file name/,
      'FORMAT',
    ],
    [
      'a backslash path as shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = '..\\x';
        }),
      /a path, not a file name/,
      'FORMAT',
    ],
    [
      'an absolute shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = '/etc/passwd';
        }),
      /a path, not a file name/,
      'FORMAT',
    ],
    [
      'a drive as shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = 'C:x';
        }),
      /a drive/,
      'FORMAT',
    ],
    [
      '".." as shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = '..';
        }),
      /not a file name/,
      'FORMAT',
    ],
    [
      'a number as shard',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = 3;
        }),
      /got "3", not a string/,
      'FORMAT',
    ],
    [
      'shards that differ in case only',
      () =>
        damaged((_dir, index) => {
          index.weight_map['ln_f.bias'] = 'MODEL_00001-of-00002.safetensors';
        }),
      /differ in more than case/,
      'FORMAT',
    ],
    [
      'an empty index',
      () =>
        damaged((_dir, index) => {
          index.weight_map = {};
        }),
      /at least one tensor in weight_map/,
      'FORMAT',
    ],
    [
      'a weight_map list',
      () =>
        damaged((_dir, index) => {
          index.weight_map = [] as never;
        }),
      /an object weight_map/,
      'FORMAT',
    ],
    [
      'a shard linked out of the folder',
      () =>
        damaged((dir) => {
          const shard = join(dir, 'model_00002-of-00002.safetensors');
          fs.renameSync(shard, join(folder, 'outside'));
          fs.symlinkSync('../outside', shard);
        }),
      /to lie in its folder, got a link that leads out/,
      'FORMAT',
    ],
    [
      'a config linked out of the folder',
      () =>
        damaged((dir) => {
          fs.rmSync(join(dir, 'config.json'));
          fs.symlinkSync('/etc/hostname', join(dir, 'config.json'));
        }),
      /a link that leads out/,
      'FORMAT',
    ],
  ];
  test.each(cases)('refuses: %s', (_title, dir, message, code) => {
    const error = refusal(dir());
    expect(error.message).toMatch(message);
    expect(error).toMatchObject({ code, hint: expect.stringMatching(/\w/) });
  });

  test('follows links inside the folder and into the blobs of a Hugging Face cache', () => {
    const cache = join(folder, 'models--x');
    const snapshot = join(cache, 'snapshots/abc');
    fs.mkdirSync(snapshot, { recursive: true });
    fs.cpSync(join(golden, 'bloom-tiny/sharded'), join(cache, 'blobs'), { recursive: true });
    for (const name of fs.readdirSync(join(cache, 'blobs')))
      fs.symlinkSync(`../../blobs/${name}`, join(snapshot, name));
    using model = openModelFolder(snapshot);
    expect(model.weights.names).toHaveLength(29);
    fs.rmSync(join(snapshot, 'config.json'));
    fs.symlinkSync('../../../elsewhere', join(snapshot, 'config.json'));
    fs.writeFileSync(join(folder, 'elsewhere'), '{}');
    expect(refusal(snapshot).message).toMatch(/a link that leads out/);
  });

  test('closes every file it opened, also when it refuses', () => {
    const count = (): number => fs.readdirSync('/proc/self/fd').length;
    const before = count();
    refusal(damaged((_dir, index) => delete index.weight_map['ln_f.bias']));
    openModelFolder(join(golden, 'bloom-tiny/sharded')).close();
    expect(count()).toBe(before);
  });
});
