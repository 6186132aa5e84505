/** Plants one violation at a time in a small repository and expects tools/lint/layers.mjs to name it. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const lint = path.resolve(__dirname, '../../tools/lint/layers.mjs');

type Tree = Record<string, string>;

function manifest(name: string, dependencies: string[], registry: Record<string, string> = {}): string {
  const ours = Object.fromEntries(dependencies.map((d) => [`@ds/${d}`, '0.1.0']));
  return JSON.stringify({ name: `@ds/${name}`, dependencies: { ...ours, ...registry } });
}

function references(dependencies: string[]): string {
  return JSON.stringify({ references: dependencies.map((d) => ({ path: `../${d}` })) });
}

/** A repository without violations: every level, a test, native sources, a tool. */
const sound: Tree = {
  'package.json': JSON.stringify({ devDependencies: { 'fast-check': '1' } }),
  'packages/core-native/package.json': manifest('core-native', []),
  'packages/core-native/tsconfig.json': references([]),
  'packages/core-native/src/index.ts': "import path = require('node:path');\nexport const a = path.sep;\n",
  'packages/core-native/csrc/runtime/pool.h': '#pragma once\n#include <vector>\n',
  'packages/core-native/csrc/kernels/common/vec.h': '#include "../../runtime/pool.h"\n',
  'packages/core-native/csrc/kernels/norm/norm.cpp': '#include "../common/vec.h"\n// getenv("HOME") is for others\n',
  'packages/core-native/csrc/cuda/launch.cuh': '#include "../runtime/pool.h"\n',
  'packages/core-native/csrc/kernels/common/gelu.cuh': '#include "../../cuda/launch.cuh"\n',
  'packages/core-native/csrc/kernels/norm/norm.cu': '#include "../../cuda/launch.cuh"\n#include "../common/gelu.cuh"\n',
  'packages/core-native/csrc/collectives/ring.cpp':
    '#include "../runtime/pool.h"\n#include "../kernels/common/vec.h"\n',
  'packages/core-native/csrc/binding/addon.cpp': '#include <napi.h>\n#include "../kernels/norm/norm.h"\n',
  'packages/io/package.json': manifest('io', ['core-native']),
  'packages/io/tsconfig.json': references(['core-native']),
  'packages/io/src/index.ts': "import { a } from '@ds/core-native';\nexport const b = a;\n",
  'packages/nn/package.json': manifest('nn', ['core-native']),
  'packages/nn/tsconfig.json': references(['core-native']),
  'packages/nn/src/index.ts': "export type { T } from '@ds/core-native';\n",
  'packages/nn/src/index.test.ts': "import fc from 'fast-check';\nimport '../../../test/support/x';\nfc;\n",
  'packages/zero/package.json': manifest('zero', ['core-native', 'io', 'nn'], { zod: '1' }),
  'packages/zero/tsconfig.json': references(['core-native', 'io', 'nn']),
  'packages/zero/src/index.ts':
    "import '@ds/core-native';\nimport '@ds/io';\nimport '@ds/nn';\nimport { z } from 'zod';\n// import '@ds/inference';\nz;\n",
  'packages/inference/package.json': manifest('inference', ['nn']),
  'packages/inference/tsconfig.json': references(['nn']),
  'packages/inference/src/index.ts': "export * from '@ds/nn';\n",
  'test/whole.test.ts': "import '@ds/zero';\n",
  'tools/main.mjs': "import './other.mjs';\n",
};

/** Not spelt out in an import below, or the lint would find it in this file. */
const belowEntry = '@ds/nn/dist/index';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ds-layers-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function check(tree: Tree): { status: number | null; lines: string[] } {
  for (const [file, text] of Object.entries(tree)) {
    mkdirSync(path.dirname(path.join(folder, file)), { recursive: true });
    writeFileSync(path.join(folder, file), text);
  }
  const { status, stderr } = spawnSync(process.execPath, [lint, '--root', folder], { encoding: 'utf8' });
  return { status, lines: stderr.split('\n').filter(Boolean) };
}

it('accepts a repository that keeps the rules', () => {
  expect(check(sound)).toEqual({ status: 0, lines: [] });
});

const planted: [what: string, file: string, text: string, said: string][] = [
  [
    'an import upwards',
    'packages/nn/src/bad.ts',
    "import { x } from '@ds/zero';\nx;\n",
    'packages/nn/src/bad.ts:1: @ds/nn (level 1) may not import @ds/zero (level 2)',
  ],
  [
    'an import of a sibling, over several lines',
    'packages/nn/src/bad.ts',
    "import {\n  x,\n  y,\n} from '@ds/io';\n",
    'packages/nn/src/bad.ts:4: @ds/nn (level 1) may not import @ds/io (level 1)',
  ],
  [
    'a sibling behind a dynamic import',
    'packages/zero/src/bad.ts',
    "const x = await import('@ds/inference');\n",
    'packages/zero/src/bad.ts:1: @ds/zero (level 2) may not import @ds/inference (level 2)',
  ],
  [
    'an import in a test that goes up',
    'packages/io/src/bad.test.ts',
    "import '@ds/zero';\n",
    'packages/io/src/bad.test.ts:1: @ds/io (level 1) may not import @ds/zero (level 2)',
  ],
  [
    'a path below a public entry',
    'packages/zero/src/bad.ts',
    `import x = require('${belowEntry}');\n`,
    'packages/zero/src/bad.ts:1: imports @ds/nn/dist/index; only the public entry @ds/nn may be imported',
  ],
  [
    "another package's source",
    'packages/zero/src/bad.ts',
    "export * from '../../nn/src/index';\n",
    'packages/zero/src/bad.ts:1: imports the source of packages/nn; import @ds/nn',
  ],
  [
    "a package's source in a test that crosses packages",
    'test/bad.test.ts',
    "import '../packages/nn/src/index';\n",
    'test/bad.test.ts:1: imports the source of packages/nn; import @ds/nn',
  ],
  [
    'an import of a tool',
    'test/bad.test.ts',
    "import '../tools/main.mjs';\n",
    'test/bad.test.ts:1: imports tools/main.mjs; nobody imports a tool',
  ],
  [
    'a library that package.json does not list',
    'packages/nn/src/bad.ts',
    "import { z } from 'zod';\nz;\n",
    'packages/nn/src/bad.ts:1: imports zod, which packages/nn/package.json does not list',
  ],
  [
    'a development library in code that ships',
    'packages/nn/src/bad.ts',
    "import fc from 'fast-check';\nfc;\n",
    'packages/nn/src/bad.ts:1: imports fast-check, which packages/nn/package.json does not list',
  ],
  [
    'a dependency that goes up',
    'packages/io/package.json',
    manifest('io', ['core-native', 'zero']),
    'packages/io/package.json: depends on @ds/zero, which is not below it',
  ],
  [
    'a TypeScript reference that is missing',
    'packages/zero/tsconfig.json',
    references(['core-native', 'io']),
    'packages/zero/tsconfig.json: lacks a reference to @ds/nn',
  ],
  ['a package without a level', 'packages/extra/package.json', manifest('extra', []), 'packages/extra: has no level'],
  [
    'a kernel that includes another family',
    'packages/core-native/csrc/kernels/gemm/bad.cpp',
    '#include "../norm/norm.h"\n',
    'packages/core-native/csrc/kernels/gemm/bad.cpp:1: kernels/gemm may not include kernels/norm/norm.h',
  ],
  [
    'a runtime that includes a kernel',
    'packages/core-native/csrc/runtime/bad.cpp',
    '\n#include "../kernels/common/vec.h"\n',
    'packages/core-native/csrc/runtime/bad.cpp:2: runtime may not include kernels/common/vec.h',
  ],
  [
    'a kernel for the CPU that includes CUDA',
    'packages/core-native/csrc/kernels/norm/bad.cpp',
    '#include "../../cuda/launch.cuh"\n',
    'packages/core-native/csrc/kernels/norm/bad.cpp:1: kernels/norm may not include cuda/launch.cuh',
  ],
  [
    'a language of CUDA that includes a kernel',
    'packages/core-native/csrc/cuda/bad.cuh',
    '#include "../kernels/common/gelu.cuh"\n',
    'packages/core-native/csrc/cuda/bad.cuh:1: cuda may not include kernels/common/gelu.cuh',
  ],
  [
    'a binding that includes the CUDA half',
    'packages/core-native/csrc/binding/bad.cpp',
    '#include "../cuda/launch.cuh"\n',
    'packages/core-native/csrc/binding/bad.cpp:1: binding may not include cuda/launch.cuh',
  ],
  [
    'a collective that knows Node',
    'packages/core-native/csrc/collectives/bad.cpp',
    '#include <napi.h>\n',
    'packages/core-native/csrc/collectives/bad.cpp:1: includes napi.h; only csrc/binding knows Node',
  ],
  [
    'a kernel that reads the environment',
    'packages/core-native/csrc/kernels/norm/bad.cpp',
    'const char* v = std::getenv("X");\n',
    'packages/core-native/csrc/kernels/norm/bad.cpp:1: reads the environment',
  ],
];

it.each(planted)('finds %s', (_what, file, text, said) => {
  const { status, lines } = check({ ...sound, [file]: text });
  expect(status).toBe(1);
  expect(lines.filter((line) => !line.includes('warning'))).toEqual([
    expect.stringContaining(`layers: ${said}`),
    'layers: 1 violation',
  ]);
});

it('warns of a file of more than 400 lines and does not fail', () => {
  const { status, lines } = check({ ...sound, 'packages/nn/src/long.ts': '\n'.repeat(401) });
  expect(status).toBe(0);
  expect(lines).toEqual([expect.stringContaining('packages/nn/src/long.ts: 401 lines')]);
});
