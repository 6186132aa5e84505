import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { JsonObject } from '../json/strict-json';
import type { TensorSource } from '../safetensors/tensor-source';
import { openModelFolder, readTokenizerFiles } from './model-folder';
import { type ModelFolderContent, ModelFolderWriter, planShards } from './model-folder-writer';

const golden = join(__dirname, '../../../../test/golden');
let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'ds-io-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  fs.rmSync(folder, { recursive: true });
});

const specsOf = (source: TensorSource) => source.names.map((name) => source.info(name));

describe('ModelFolderWriter', () => {
  /** Copies the golden model through the writer. */
  function copy(target: string, options: Partial<ModelFolderContent> = {}): void {
    using model = openModelFolder(join(golden, 'bloom-tiny'));
    using writer = ModelFolderWriter.create(target, {
      config: model.config,
      generationConfig: model.generationConfig as JsonObject,
      tensors: specsOf(model.weights),
      files: readTokenizerFiles(join(golden, 'bloom-tiny')),
      ...options,
    });
    for (const name of model.weights.names) writer.write(name, model.weights.tensor(name).bytes);
    writer.finish();
  }

  test('writes a folder equal to the original, file by file', () => {
    const target = join(folder, 'copy');
    copy(target);
    const names = [
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ];
    expect(fs.readdirSync(target).sort()).toEqual(names);
    expect(fs.readdirSync(folder)).toEqual(['copy']);
    for (const name of ['model.safetensors', 'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json']) {
      expect(fs.readFileSync(join(target, name)).equals(fs.readFileSync(join(golden, 'bloom-tiny', name)))).toBe(true);
    }
    expect(fs.readFileSync(join(target, 'config.json'), 'utf8')).toMatch(
      /^\{\n {2}"apply_residual_connection_post_layernorm": false,\n/,
    );
    expect(JSON.parse(fs.readFileSync(join(target, 'config.json'), 'utf8'))).toEqual(
      JSON.parse(fs.readFileSync(join(golden, 'bloom-tiny/config.json'), 'utf8')),
    );
  });

  test('divides weights into shards with an index', () => {
    const target = join(folder, 'sharded');
    copy(target, { maxShardBytes: 200_000 });
    const index = JSON.parse(fs.readFileSync(join(target, 'model.safetensors.index.json'), 'utf8'));
    expect(index.metadata.total_size).toBe(531_968);
    expect([...new Set(Object.values(index.weight_map))].sort()).toEqual(
      [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`),
    );
    expect(Object.keys(index.weight_map)).toEqual(Object.keys(index.weight_map).sort());
    using model = openModelFolder(target);
    using original = openModelFolder(join(golden, 'bloom-tiny'));
    for (const name of original.weights.names)
      expect(model.weights.tensor(name)).toEqual(original.weights.tensor(name));
    for (const name of fs.readdirSync(target).filter((file) => /-of-/.test(file))) {
      expect(fs.statSync(join(target, name)).size).toBeLessThan(200_000 + 5000);
    }
  });

  test('gives a tensor above the limit a shard of its own', () => {
    const spec = (name: string, size: number) => ({ name, dtype: 'u8', shape: [size] }) as const;
    const plan = planShards([spec('a', 4), spec('b', 6), spec('c', 100), spec('d', 1), spec('e', 9), spec('f', 1)], 10);
    expect(plan.map((shard) => shard.map(({ name }) => name).join(''))).toEqual(['ab', 'c', 'de', 'f']);
    expect(() => planShards([], 0)).toThrow(expect.objectContaining({ code: 'CONFIG' }));
  });

  test('replaces an older model only when told, and never other files', () => {
    const target = join(folder, 'model');
    fs.mkdirSync(target);
    copy(target, { maxShardBytes: 200_000 });
    expect(() => copy(target)).toThrow(/no folder .*model yet, got one with 9 entries. .*overwrite/);
    copy(target, { overwrite: true });
    expect(fs.readdirSync(target)).toHaveLength(6);
    fs.writeFileSync(join(target, 'notes.doc'), 'mine');
    expect(() => copy(target, { overwrite: true })).toThrow(/nothing but an older model in .*, got also "notes.doc"/);
    expect(fs.readFileSync(join(target, 'notes.doc'), 'utf8')).toBe('mine');
    expect(fs.readdirSync(folder)).toEqual(['model']);
  });

  test('leaves the old model and nothing else when any file operation fails', () => {
    const target = join(folder, 'model');
    copy(target, { maxShardBytes: 300_000 });
    const before = fs.readdirSync(target);
    let failures = 0;
    for (const operation of ['writeSync', 'fsyncSync', 'renameSync', 'mkdirSync'] as const) {
      const original = fs[operation] as (...args: unknown[]) => unknown;
      for (let failing = 1, calls = 1; calls >= failing - 1; failing++) {
        calls = 0;
        const spy = jest.spyOn(fs, operation as 'fsyncSync').mockImplementation(((...args: unknown[]) => {
          if (++calls === failing)
            throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
          return original.apply(fs, args);
        }) as typeof fs.fsyncSync);
        try {
          copy(target, { overwrite: true, config: { attempt: failing } });
        } catch (error) {
          expect(error).toMatchObject({ code: 'IO' });
          failures++;
        }
        spy.mockRestore();
        expect(fs.readdirSync(folder)).toEqual(['model']);
        using model = openModelFolder(target);
        if ('attempt' in model.config) copy(target, { overwrite: true, maxShardBytes: 300_000 });
        else expect(fs.readdirSync(target)).toEqual(before);
      }
    }
    expect(failures).toBeGreaterThan(30);
  });

  test('leaves nothing when the disk fills up and the caller does not clean up', () => {
    const tensors = [{ name: 'x', dtype: 'u8', shape: [2] }] as const;
    const writer = ModelFolderWriter.create(join(folder, 'x'), { config: {}, tensors });
    jest.spyOn(fs, 'writeSync').mockImplementation(() => {
      throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
    });
    expect(() => writer.write('x', new Uint8Array(2))).toThrow(/a full disk \(ENOSPC\)/);
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  test('refuses extra files that are paths or clash with the model', () => {
    for (const name of ['../x', 'config.json', 'model.safetensors', 'a/b']) {
      expect(() => copy(join(folder, 'x'), { files: { [name]: '' } })).toThrow(/names of more files, got/);
    }
    expect(fs.readdirSync(folder)).toEqual([]);
  });

  test('refuses a tensor twice, unknown or unfinished, and leaves nothing', () => {
    const spec = { name: 'x', dtype: 'u8', shape: [2] } as const;
    const target = join(folder, 'x');
    expect(() => ModelFolderWriter.create(target, { config: {}, tensors: [spec, spec], maxShardBytes: 2 })).toThrow(
      /"x" twice/,
    );
    using writer = ModelFolderWriter.create(target, { config: {}, tensors: [spec] });
    expect(() => writer.write('y', new Uint8Array(2))).toThrow(/a tensor announced to create/);
    expect(() => writer.finish()).toThrow(/2 bytes for tensor x, got 0/);
    expect(fs.readdirSync(folder)).toEqual([]);
  });
});
