/** Counters and histograms, and how Prometheus reads them. Source: Prometheus, "Exposition formats", version 0.0.4. */

export type Labels = Readonly<Record<string, string>>;

/** A number that only rises, one for each set of labels. */
export class Counter {
  readonly #values = new Map<string, number>();

  add(labels: Labels, by = 1): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + by);
  }

  lines(name: string): string[] {
    return [...this.#values].map(([labels, value]) => `${name}${braced(labels)} ${value}`);
  }
}

/** How often something took up to so many seconds. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: number[];
  #sum = 0;
  #count = 0;

  /** @param bounds rising */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = bounds.map(() => 0);
  }

  observe(value: number): void {
    this.#sum += value;
    this.#count++;
    for (const [i, bound] of this.#bounds.entries()) if (value <= bound) this.#counts[i]!++;
  }

  lines(name: string, labels: Labels): string[] {
    const bucket = (le: string, count: number) => `${name}_bucket${braced(labelText({ ...labels, le }))} ${count}`;
    return [
      ...this.#bounds.map((bound, i) => bucket(String(bound), this.#counts[i]!)),
      bucket('+Inf', this.#count),
      `${name}_sum${braced(labelText(labels))} ${this.#sum}`,
      `${name}_count${braced(labelText(labels))} ${this.#count}`,
    ];
  }
}

export interface Family {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly lines: (name: string) => readonly string[];
}

export function gaugeLine(name: string, labels: Labels, value: number): string {
  return `${name}${braced(labelText(labels))} ${value}`;
}

/** Writes families in the text format. */
export function exposition(families: readonly Family[]): string {
  return families
    .flatMap(({ name, type, help, lines }) => [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines(name)])
    .map((line) => `${line}\n`)
    .join('');
}

function labelText(labels: Labels): string {
  const escaped = (value: string) => value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
  return Object.entries(labels)
    .map(([name, value]) => `${name}="${escaped(value)}"`)
    .join(',');
}

function braced(labels: string): string {
  return labels === '' ? '' : `{${labels}}`;
}
