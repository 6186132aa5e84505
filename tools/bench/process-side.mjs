/**
 * A side that runs in a process of its own and is driven by lines of JSON: a rival in Python, or our own program where
 * it needs several ranks or a memory of its own.
 *
 * Requests are `{"prepare": …}`, `{"run": iterations}`, `{"outputs": folder}` and `{"facts": true}`; each is answered by one line,
 * `{"error": "…"}` for a failure, `{"release": true}` frees what `prepare` made, and `prepare` may answer `{"missing": "…"}`: it cannot do that work. `run` answers `{"seconds": s}` for all iterations, taken inside the process. The
 * process ends when its stdin does. rivals/rival.py and node-side.mjs are the other end.
 */
import { spawn, spawnSync } from 'node:child_process';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const rivals = fileURLToPath(new URL('rivals/', import.meta.url));

/** Starts a program and speaks with it. */
export class ProcessSide {
  #command;
  #environment;
  #child;
  #answers;
  #stderr = '';
  #stays;

  /** @param options.stays whether the process outlives `stop`, for the next `start`; `end` ends it */
  constructor(name, command, { prepare = {}, env = {}, stays = false } = {}) {
    this.name = name;
    this.prepare = prepare;
    this.#command = command;
    this.#environment = env;
    this.#stays = stays;
  }

  get pid() {
    return this.#child?.pid;
  }

  get #lives() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async start() {
    this.missing = undefined;
    if (!this.#lives) this.#spawn();
    const { missing } = await this.ask({ prepare: this.prepare });
    if (missing) this.missing = missing;
  }

  #spawn() {
    const [program, ...args] = this.#command;
    this.#child = spawn(program, args, {
      env: { ...process.env, ...this.#environment },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stdin.on('error', () => {}); // A dead program shows as an answer that does not come.
    this.#child.stderr.on('data', (text) => {
      this.#stderr = `${this.#stderr}${text}`.slice(-4000);
    });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** Sends one request and gives the answer. @throws Error with the program's own words */
  async ask(request) {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const { value, done } = await this.#answers.next();
    if (done) throw new Error(`${this.name} ended without an answer\n${this.#stderr}`);
    const answer = JSON.parse(value);
    if (answer.error) throw new Error(`${this.name}: ${answer.error}`);
    return answer;
  }

  async run(iterations) {
    return (await this.ask({ run: iterations })).seconds;
  }

  /** Has the program write its results into `folder`; gives what it says of them. */
  outputs(folder) {
    return this.ask({ outputs: folder });
  }

  async facts() {
    return (await this.ask({ facts: true })).facts;
  }

  async stop() {
    if (!this.#stays) await this.end();
    else if (this.#lives) await this.ask({ release: true });
  }

  async end() {
    if (!this.#lives) return;
    const closed = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.stdin.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await closed;
    clearTimeout(timer);
  }
}

let python;

/** Finds a Python with the module, or says why there is none. Asked once a run, because it takes seconds. */
function findPython(module) {
  python ??= new Map();
  if (!python.has(module)) {
    const program = process.env.DS_BENCH_PYTHON || 'python3';
    const code = `import ${module}; print(${module}.__version__)`;
    const { status, stdout } = spawnSync(program, ['-c', code], { encoding: 'utf8' });
    python.set(module, status === 0 ? { program, version: stdout.trim() } : undefined);
  }
  return python.get(module);
}

/**
 * A rival written in Python: `rivals/<script>`, run where Python and `module` are installed (DS_BENCH_PYTHON names
 * another Python). Where they are not, it has `missing` instead, and the row says so.
 */
export function pythonRival(name, script, { module = 'torch', prepare = {}, env = {} } = {}) {
  const found = findPython(module);
  if (!found) return { name, missing: `${module} is not installed` };
  const command = [found.program, path.join(rivals, script)];
  return new ProcessSide(`${name} (${module} ${found.version})`, command, { prepare, env });
}

const lasting = new Map();

/**
 * A rival in Python whose process serves every bench of this run that names its script, one after the other: one that has
 * torch and a GPU takes seconds to start. `endLastingRivals` ends them; until then this process does not end either.
 */
export function lastingPythonRival(name, script, { module = 'torch', prepare = {} } = {}) {
  const found = findPython(module);
  if (!found) return { name, missing: `${module} is not installed` };
  if (!lasting.has(script))
    lasting.set(script, new ProcessSide('', [found.program, path.join(rivals, script)], { stays: true }));
  return Object.assign(lasting.get(script), { name: `${name} (${module} ${found.version})`, prepare });
}

export async function endLastingRivals() {
  await Promise.all([...lasting.values()].map((side) => side.end()));
  lasting.clear();
}
