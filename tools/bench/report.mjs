/** Shows rows as a table and keeps them in bench/results/. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root, shown } from '../programs.mjs';
import { machineSlug } from './machine.mjs';

function cells(row) {
  const percent = row.roofline_share === null ? '' : `${Math.round(row.roofline_share * 100)} %`;
  return [
    row.name,
    `${row.ours} ${row.unit}`,
    `${row.spread.p10}–${row.spread.p90}`,
    row.rival === null ? '' : `${row.rival} ${row.unit}`,
    row.rival_name ?? '',
    row.ratio === null ? '' : `${row.ratio.toFixed(2)}×`,
    percent,
  ];
}

const HEADER = ['bench', 'ours', 'p10–p90', 'rival', 'who', 'ratio', 'roofline'];

/** A Markdown table, its columns lined up for the terminal. */
export function table(rows) {
  const lines = [HEADER, ...rows.map(cells)];
  const widths = HEADER.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) => `| ${line.map((cell, column) => cell.padEnd(widths[column])).join(' | ')} |`);
  text.splice(1, 0, `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`);
  return text.join('\n');
}

/** Keeps rows in today's file of this machine, in place of older ones of the same name and rival. Gives the file's path. */
export function saveResults(rows, isa, gpu) {
  const folder = path.join(root, 'bench/results');
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${machineSlug(isa, gpu)}-${new Date().toISOString().slice(0, 10)}.json`);
  const older = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : [];
  const names = new Set(rows.map((row) => row.name));
  const all = [...older.filter((row) => !names.has(row.name)), ...rows];
  writeFileSync(file, `[\n${all.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]\n`);
  const { machine, commit } = rows[0];
  writeFileSync(file.replace(/json$/, 'md'), `${machine}. Newest commit ${commit}.\n\n${table(all)}\n`);
  return shown(file);
}
