/** What the doctor says of one thing: what is there, what is used, and why not more. */

export interface Finding {
  readonly name: string;
  /** `bad`: nothing will run. `warn`: something will be slower or is missing. `info`: a fact without a verdict. */
  readonly status: 'good' | 'warn' | 'bad' | 'info';
  readonly found: string;
  /** What we make of it; absent where there is no choice. */
  readonly chosen?: string;
  /** Why not something better, or what to do. */
  readonly why?: string;
}
