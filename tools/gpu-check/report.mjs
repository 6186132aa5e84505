/** Writes what was found so far: table.md for people, rows.json in the form of bench/results. */
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { table as benchTable } from '../bench/report.mjs';
import { outcomes, readChecks, readRows } from './record.mjs';

/** What the check would also do if it were built, so that nobody takes its absence for a success. */
const notBuilt = ['ZeRO-Offload step: not built, so not checked'];
const SHOWN_CHARACTERS = 400;

function cell(text) {
  const line = text.replace(/\s+/g, ' ').replaceAll('|', '\\|').trim();
  return line.length > SHOWN_CHARACTERS ? `${line.slice(0, SHOWN_CHARACTERS)}…` : line;
}

function machineLines({ gpu, versions }) {
  const card = [gpu.name, gpu.capability && `compute capability ${gpu.capability}`, gpu.memory, gpu.clock, gpu.power];
  const programs = Object.entries(versions).map(([name, version]) => `${name} ${version || 'not found'}`);
  return `${card.filter(Boolean).join(', ')}. ${programs.join(', ')}.`;
}

function stageLine({ name, seconds, end }, checks) {
  const counts = outcomes.map((outcome) => checks.filter((c) => c.stage === name && c.outcome === outcome).length);
  return `| ${name} | ${counts.join(' | ')} | ${seconds === undefined ? '' : seconds.toFixed(0)} | ${cell(end ?? '')} |`;
}

/** One line for each thing that did not pass; ops without a kernel, which fail case by case, take one an op. */
function badLines(checks) {
  const line = ({ stage, name, outcome, detail }) => `- **${outcome}** ${stage}: ${cell(name)}: ${cell(detail)}`;
  const bad = checks.filter(({ outcome }) => outcome === 'failed' || outcome === 'skipped').map(line);
  const cases = new Map();
  for (const { outcome, detail } of checks)
    if (outcome === 'no kernel') cases.set(detail, (cases.get(detail) ?? 0) + 1);
  return [...bad, ...[...cases].map(([detail, count]) => `- **no kernel** (${count} checks): ${cell(detail)}`)];
}

/**
 * Writes the report, over an older one.
 *
 * @param stages `{ name, seconds?, end? }` of every stage; `end` says how it ended, if it did
 */
export function writeReport(folder, { machine, library, stages, seconds }) {
  const checks = readChecks(folder);
  const rows = readRows(folder);
  writeFileSync(path.join(folder, 'rows.json'), `[\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`);
  const bad = badLines(checks);
  const text = [
    '# GPU check',
    machineLines(machine),
    `CUDA library: ${library}. ${seconds.toFixed(0)} s in all.`,
    [
      `| stage | ${outcomes.join(' | ')} | seconds | end |`,
      `|---|${'---:|'.repeat(outcomes.length + 1)}---|`,
      ...stages.map((stage) => stageLine(stage, checks)),
    ].join('\n'),
    notBuilt.map((line) => `- ${line}`).join('\n'),
    ...(rows.length > 0 ? ['## Benches', benchTable(rows)] : []),
    ...(bad.length > 0 ? ['## What did not pass', bad.join('\n')] : []),
  ].join('\n\n');
  writeFileSync(path.join(folder, 'table.md'), `${text}\n`);
  return text;
}
