/** Follows the memory of one rank through one step of the plan, by owner. */
import type { Device } from '@ds/core-native';
import type { UnitUse } from '@ds/nn';
import { modelStateOwners, planOpText, type ZeroEngine } from '@ds/zero';
import type { MemoryMoment } from './records';

/** What an op needs while it runs and gives back at its end. */
export const workingOwner = 'working memory';

export class MemoryWatch {
  readonly #engine: ZeroEngine;
  readonly #uses: readonly UnitUse[];
  #moments: MemoryMoment[] = [];
  #highest = 0;
  #before: ReturnType<Device['account']>;
  readonly #highestOf = new Map<string, number>();

  constructor(engine: ZeroEngine, uses: readonly UnitUse[]) {
    this.#engine = engine;
    this.#uses = uses;
    this.#before = engine.device.account();
  }

  /** Begins to follow. The device's peaks start anew at every op; the sums kept here stand in for them. */
  start(): void {
    const { device, plan } = this.#engine;
    this.#moments = [];
    this.#highest = 0;
    this.#highestOf.clear();
    device.resetPeak();
    this.#before = device.account();
    this.#engine.onOp = (op) => this.#add(planOpText(plan, this.#uses, op), device);
  }

  /** Ends it. @returns one moment an op, with the most that was held during it */
  stop(): readonly MemoryMoment[] {
    this.#engine.onOp = undefined;
    return this.#moments;
  }

  /** The most that was held while following. */
  get peakBytes(): number {
    return Math.max(this.#highest, this.#engine.device.account().peak);
  }

  /** As the engine's, while following. */
  modelStateBytes(): number {
    return modelStateOwners.reduce((sum, owner) => sum + this.highestOf(owner), 0);
  }

  /** The most that one owner held while following. */
  highestOf(owner: string): number {
    return this.#highestOf.get(owner) ?? 0;
  }

  /** Books the most that was held during an op: what lay there before or after it, and what came and went in between. */
  #add(at: string, device: Device): void {
    const account = device.account();
    for (const [owner, { peak }] of Object.entries(account.owners))
      this.#highestOf.set(owner, Math.max(this.highestOf(owner), peak));
    this.#highest = Math.max(this.#highest, account.peak);
    const larger = this.#before.live > account.live ? this.#before : account;
    const bytes: Record<string, number> = {};
    for (const [owner, { live }] of Object.entries(larger.owners)) if (live > 0) bytes[owner] = live;
    if (account.peak > larger.live) bytes[workingOwner] = account.peak - larger.live;
    this.#moments.push({ at, bytes });
    this.#before = account;
    device.resetPeak();
  }
}

/** Most moments that are worth drawing. */
const maxMoments = 1200;

/** Shortens a timeline to what can be drawn: of neighbours, the one that holds most. */
export function thinTimeline(timeline: readonly MemoryMoment[]): readonly MemoryMoment[] {
  const every = Math.ceil(timeline.length / maxMoments);
  if (every <= 1) return timeline;
  const total = ({ bytes }: MemoryMoment) => Object.values(bytes).reduce((sum, value) => sum + value, 0);
  const groups = Array.from({ length: Math.ceil(timeline.length / every) }, (_, i) =>
    timeline.slice(i * every, (i + 1) * every),
  );
  return groups.map((group) => group.reduce((most, moment) => (total(moment) > total(most) ? moment : most)));
}
