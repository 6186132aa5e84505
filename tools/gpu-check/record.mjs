/**
 * What a check found, as lines of JSON in the folder of results: every program of the check appends to the same two files, so
 * that whatever ends a run leaves what was found before.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** `passed`; `failed`; `no kernel`: the op has none for CUDA; `skipped`: was not tried, which is no success. */
export const outcomes = ['passed', 'failed', 'no kernel', 'skipped'];

function append(folder, file, value) {
  appendFileSync(path.join(folder, file), `${JSON.stringify(value)}\n`);
}

function lines(folder, file) {
  const full = path.join(folder, file);
  if (!existsSync(full)) return [];
  return readFileSync(full, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/** Says what became of one thing that was checked; `detail` is for people. */
export function recordCheck(folder, stage, name, outcome, detail = '') {
  if (!outcomes.includes(outcome)) throw new Error(`${outcome} is none of ${outcomes.join(', ')}`);
  append(folder, 'checks.jsonl', { stage, name, outcome, detail });
}

/** Runs `check` and records how it ended. Gives whether it passed. */
export async function tryCheck(folder, stage, name, check) {
  try {
    const detail = await check();
    recordCheck(folder, stage, name, 'passed', detail ?? '');
    return true;
  } catch (error) {
    recordCheck(folder, stage, name, ...outcomeOf(error));
    return false;
  }
}

/** How an error counts: an op without a kernel is a gap by name, not a wrong result. */
export function outcomeOf(error) {
  const text = String(error?.message ?? error);
  // By its text, because it may come from a program of ours that the check started.
  const op = /(\w+): expected an op with a CUDA kernel/.exec(text)?.[1];
  if (op) return ['no kernel', `${op} has no CUDA kernel`];
  return ['failed', text];
}

export function recordRow(folder, row) {
  append(folder, 'rows.jsonl', row);
}

export const readChecks = (folder) => lines(folder, 'checks.jsonl');
export const readRows = (folder) => lines(folder, 'rows.jsonl');
