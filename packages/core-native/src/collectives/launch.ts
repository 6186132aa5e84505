/** Starts the ranks of a job on this host, and sees to it that they end together. */
import fs = require('node:fs');
import os = require('node:os');
import path = require('node:path');

import { type ChildProcess, spawn } from 'node:child_process';
import { DsError } from '../errors';
import { native } from '../loader';
import { LineCutter } from './lines';

export interface RankLine {
  rank: number;
  stream: 'stdout' | 'stderr';
  text: string;
}

export interface LaunchOptions {
  /** Number of ranks. */
  world: number;
  /** A JavaScript file that every rank runs with this Node, ... */
  script?: string;
  /** ... or any program and its first arguments. Its ranks end with the launcher once they have called `ProcessGroup.fromEnvironment`. */
  command?: readonly [string, ...string[]];
  args?: readonly string[];
  /** Beside the launcher's own environment; `undefined` takes a variable away. */
  env?: Readonly<Record<string, string | undefined>>;
  cwd?: string;
  /** Gets every line of every rank. Default: prints them to stdout and stderr as `[rank] line`. */
  onLine?: (line: RankLine) => void;
  /** Ends the job after this time; default never. */
  timeoutMs?: number;
  /** Ends the job: SIGTERM, then SIGKILL. */
  signal?: AbortSignal;
  /** `DS_NUM_THREADS` of each rank; default: the cores cut evenly. */
  threadsPerRank?: number;
  /** What is left to the other ranks for ending by themselves when one has died, before SIGTERM, and again before SIGKILL; default 1500 ms. */
  graceMs?: number;
  /**
   * Passes SIGINT (Ctrl-C), SIGTERM and SIGHUP on to the ranks while the job runs: the first time as they are, so that
   * ranks can end well, the second time as SIGKILL. Default true.
   */
  forwardSignals?: boolean;
}

export interface RankExit {
  rank: number;
  /** null when a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface LaunchResult {
  ranks: RankExit[];
  /** A signal was passed on, and all ranks ended well. */
  interrupted: boolean;
}

const KEPT_LINES = 20;
const LEFT_OPEN_MS = 2000;
const forwarded = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Beside the built files, whether this one was built or is run from the source. */
const preload = path.join(__dirname, '..', '..', 'dist', 'collectives', 'rank-preload.js');

interface Rank {
  readonly rank: number;
  readonly child: ChildProcess;
  readonly lastErrors: string[];
  exit?: RankExit;
  /** We have told it to end. */
  told: boolean;
}

/**
 * Runs `world` ranks and waits for all of them. The first that fails ends the others.
 *
 * Every rank gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, DS_NUM_THREADS, and the job's shared memory, by which
 * `ProcessGroup.fromEnvironment` joins it. Call it from the main thread: the system ties ranks to the thread that
 * spawned them.
 *
 * @throws COMM naming the rank that failed, with its exit code or signal and its last lines; COMM_TIMEOUT; ABORTED
 */
export async function launch(options: LaunchOptions): Promise<LaunchResult> {
  const { world } = options;
  if (!Number.isInteger(world) || world < 1 || world > 256)
    throw configError('1 to 256 ranks for world', String(world));
  if ((options.script === undefined) === (options.command === undefined))
    throw configError('either script or command', options.script === undefined ? 'neither' : 'both');
  if (options.signal?.aborted) throw aborted('the signal was aborted before the start');
  return new Job(options).run();
}

class Job {
  readonly #options: LaunchOptions;
  readonly #graceMs: number;
  readonly #ranks: Rank[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #done: Promise<void>;
  #finish!: () => void;
  /** Why we end the job, unless a rank's death is the reason. */
  #failure: DsError | undefined;
  #firstDeath: Rank | undefined;
  #interruptedBy: NodeJS.Signals | undefined;

  constructor(options: LaunchOptions) {
    this.#options = options;
    this.#graceMs = options.graceMs ?? 1500;
    this.#done = new Promise((resolve) => {
      this.#finish = resolve;
    });
  }

  async run(): Promise<LaunchResult> {
    const { signal, timeoutMs } = this.#options;
    const onAbort = () => this.#end(aborted('the signal was aborted'));
    const onSignal = (name: NodeJS.Signals) => this.#passOn(name);
    // The last resort when this process ends while ranks run: exit handlers must be synchronous, as kill is.
    const onExit = () => this.#tell('SIGKILL');
    process.on('exit', onExit);
    if (this.#options.forwardSignals ?? true) for (const name of forwarded) process.on(name, onSignal);
    signal?.addEventListener('abort', onAbort);
    try {
      this.#spawn();
      if (timeoutMs !== undefined) this.#after(timeoutMs, () => this.#end(this.#timedOut(timeoutMs)));
      await this.#done;
    } finally {
      for (const timer of this.#timers) clearTimeout(timer);
      for (const name of forwarded) process.off(name, onSignal);
      process.off('exit', onExit);
      signal?.removeEventListener('abort', onAbort);
    }
    const failure = this.#failure ?? this.#deathOf(this.#culprit());
    if (failure) throw failure;
    return { ranks: this.#ranks.map((rank) => rank.exit!), interrupted: this.#interruptedBy !== undefined };
  }

  #spawn(): void {
    const { world } = this.#options;
    const memory = native.comm_create_segment(world);
    try {
      for (let rank = 0; rank < world; rank++) this.#spawnRank(rank, memory);
    } catch (error) {
      this.#tell('SIGKILL');
      throw error;
    } finally {
      fs.closeSync(memory);
    }
  }

  #spawnRank(rank: number, memory: number): void {
    const { script, command, args = [], world, cwd } = this.#options;
    const [program, ...first] = command ?? [process.execPath, '--require', preload, path.resolve(cwd ?? '', script!)];
    const threads = this.#options.threadsPerRank ?? Math.max(1, Math.floor(os.availableParallelism() / world));
    const child = spawn(program, [...first, ...args], {
      ...(cwd === undefined ? {} : { cwd }),
      env: {
        ...process.env,
        DS_NUM_THREADS: String(threads),
        ...this.#options.env,
        RANK: String(rank),
        WORLD_SIZE: String(world),
        LOCAL_RANK: String(rank),
        LOCAL_WORLD_SIZE: String(world),
        DS_COMM_FD: '3',
        DS_LAUNCHER_PID: String(process.pid),
      },
      stdio: ['ignore', 'pipe', 'pipe', memory],
      // A process group of its own: Ctrl-C on a terminal reaches ranks once, through us, and a rank's own children can
      // be ended with it.
      detached: true,
    });
    const entry: Rank = { rank, child, lastErrors: [], told: false };
    this.#ranks.push(entry);
    this.#read(entry, 'stdout');
    this.#read(entry, 'stderr');
    child.once('error', (cause) => {
      if (child.pid !== undefined) return;
      entry.exit = { rank, code: null, signal: null };
      const hint = 'see that the program exists and may be run';
      const expected = `to start ${program}`;
      this.#end(new DsError({ code: 'COMM', op: 'launch', expected, actual: cause.message, hint, cause }));
      this.#check();
    });
    child.once('exit', (code, signal) => this.#onExit(entry, code, signal));
    child.once('close', () => this.#check());
  }

  #read(entry: Rank, stream: 'stdout' | 'stderr'): void {
    const { rank, child, lastErrors } = entry;
    const cutter = new LineCutter((text) => {
      if (stream === 'stderr' && lastErrors.push(text) > KEPT_LINES) lastErrors.shift();
      if (this.#options.onLine) this.#options.onLine({ rank, stream, text });
      else process[stream].write(`[${rank}] ${text}\n`);
    });
    child[stream]!.on('data', (bytes: Buffer) => cutter.write(bytes));
    child[stream]!.on('end', () => cutter.end());
  }

  #onExit(entry: Rank, code: number | null, signal: NodeJS.Signals | null): void {
    entry.exit = { rank: entry.rank, code, signal };
    if (code !== 0 && !this.#firstDeath) {
      this.#firstDeath = entry;
      // The others mostly notice by themselves, and have something to say about it.
      this.#after(this.#graceMs, () => this.#terminate());
    }
    // A process that the rank left behind may hold its pipes open.
    this.#after(LEFT_OPEN_MS, () => {
      entry.child.stdout?.destroy();
      entry.child.stderr?.destroy();
    });
  }

  #check(): void {
    if (this.#ranks.length < this.#options.world && !this.#failure) return;
    const over = ({ exit, child }: Rank) => exit && (child.pid === undefined || child.stdout?.closed);
    if (this.#ranks.every(over)) this.#finish();
  }

  #end(failure: DsError): void {
    this.#failure ??= failure;
    this.#terminate();
  }

  #terminate(): void {
    this.#tell('SIGTERM');
    this.#after(this.#graceMs, () => this.#tell('SIGKILL'));
  }

  #passOn(name: NodeJS.Signals): void {
    if (this.#interruptedBy) {
      this.#failure ??= aborted(`${name} a second time`);
      this.#tell('SIGKILL');
      return;
    }
    this.#interruptedBy = name;
    this.#tell(name);
  }

  /** SIGKILL goes to everything that a rank has started, other signals to the rank. */
  #tell(name: NodeJS.Signals): void {
    for (const entry of this.#ranks) {
      const { child, exit } = entry;
      if (exit || child.pid === undefined) continue;
      entry.told = true;
      try {
        process.kill(name === 'SIGKILL' ? -child.pid : child.pid, name);
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  #after(ms: number, work: () => void): void {
    this.#timers.push(setTimeout(work, ms));
  }

  /** The rank to blame: one that a signal ended has drawn the others into their errors, not they it. */
  #culprit(): Rank | undefined {
    if (this.#firstDeath?.exit?.signal) return this.#firstDeath;
    return this.#ranks.find(({ exit, told }) => exit?.signal && !told) ?? this.#firstDeath;
  }

  #deathOf(dead: Rank | undefined): DsError | undefined {
    if (!dead) return undefined;
    const { rank, exit, lastErrors } = dead;
    const number = exit?.signal ? os.constants.signals[exit.signal] : 0;
    const how = exit?.signal
      ? `killed by signal ${number} (${exit.signal})${exit.signal === 'SIGKILL' ? ', likely out of memory' : ''}`
      : `that ended with exit code ${exit?.code}`;
    const by = this.#interruptedBy ? ` after ${this.#interruptedBy}` : '';
    return new DsError({
      code: this.#interruptedBy ? 'ABORTED' : 'COMM',
      op: 'launch',
      expected: `${this.#options.world} ranks that end well`,
      actual: `rank ${rank} ${how}${by}`,
      hint: lastErrors.length > 0 ? `Its last lines:\n${lastErrors.join('\n')}` : 'It wrote nothing to stderr',
    });
  }

  #timedOut(timeoutMs: number): DsError {
    const left = this.#ranks.filter(({ exit }) => !exit).map(({ rank }) => rank);
    return new DsError({
      code: 'COMM_TIMEOUT',
      op: 'launch',
      expected: `all ranks to end within ${timeoutMs} ms`,
      actual: `rank ${left.join(', ')} still at work`,
    });
  }
}

function configError(expected: string, actual: string): DsError {
  return new DsError({ code: 'CONFIG', op: 'launch', expected, actual });
}

function aborted(why: string): DsError {
  return new DsError({ code: 'ABORTED', op: 'launch', expected: 'a job that goes on', actual: why });
}
