/**
 * Runs the scenarios with the newest generation of the clients, which needs Node 24: node test/clients/next-generation.mjs
 *
 * It installs them, and that Node, into a folder of their own. CI runs the generation that is in package.json.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const packages = [
  // The package `node` fetches this one by an install script.
  `node-${process.platform}-${process.arch}@24`,
  'openai@7.57.0',
  'ai@7.0.173',
  '@ai-sdk/openai@4.0.118',
  '@ai-sdk/openai-compatible@3.0.92',
  '@langchain/openai@1.6.0',
  '@langchain/core',
  'zod@4',
];

const folder = mkdtempSync(path.join(tmpdir(), 'ds-clients-'));
try {
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ private: true }));
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...packages], {
    cwd: folder,
    stdio: 'inherit',
  });
  copyFileSync(path.join(import.meta.dirname, 'scenarios.mjs'), path.join(folder, 'scenarios.mjs'));
  const env = {
    ...process.env,
    DS_CLIENTS_NODE: path.join(folder, `node_modules/node-${process.platform}-${process.arch}/bin/node`),
    DS_CLIENTS_SCENARIOS: path.join(folder, 'scenarios.mjs'),
  };
  const { status } = spawnSync('npx', ['jest', 'test/clients'], { env, stdio: 'inherit' });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
