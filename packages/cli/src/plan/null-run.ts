/**
 * A training step on the `null` device among ranks that do not exist: the engine itself, op by op, with shapes and bytes
 * only. So memory and traffic of a model of any size are exact, and known before anything is computed.
 */
import { device as deviceOf, ProcessGroup } from '@ds/core-native';
import { type DeepSpeedConfig, initialize, owners } from '@ds/zero';
import { MemoryWatch, workingOwner } from '../train/memory-watch';
import { createModel, type ModelSource } from '../train/model';
import type { MemoryMoment } from '../train/records';
import { TrafficMeter } from '../train/traffic-meter';

export interface NullRunOptions {
  readonly model: ModelSource;
  /** Resolved for the world to plan for. */
  readonly config: DeepSpeedConfig;
  /** T */
  readonly sequenceLength: number;
}

/** What one rank needs. */
export interface PlanNumbers {
  readonly paramsBytes: number;
  readonly gradsBytes: number;
  readonly optimizerBytes: number;
  readonly modelStateBytes: number;
  /** The most that activations, and what ops work with, take at any time. */
  readonly activationBytes: number;
  /** The most that gathered weights take at any time. */
  readonly gatheredBytes: number;
  /** The most that gradients on their way to the ranks take at any time. */
  readonly gradientBufferBytes: number;
  /** The most of all together. */
  readonly peakBytes: number;
  /** In one optimizer step. */
  readonly elementsSent: number;
  readonly bytesSent: number;
  readonly timeline: readonly MemoryMoment[];
}

/** Plans one rank by running it. @throws CONFIG, SHAPE */
export async function planByRunning({ model: source, config, sequenceLength }: NullRunOptions): Promise<PlanNumbers> {
  const device = deviceOf('null');
  const liveBefore = device.account().live;
  device.resetPeak();
  using group = ProcessGroup.null(config.world);
  using model = createModel(source);
  using engine = await initialize({ model, config, group, device });
  const atStart = device.account().peak;
  const row = new Int32Array(sequenceLength + 1);
  const next = () => ({ rows: Array.from({ length: config.batch.micro }, () => row) });
  // The first step makes what stays; the second one is like all that follow.
  await engine.trainBatch(next);
  const watch = new MemoryWatch(engine, model.uses);
  const meter = new TrafficMeter(group);
  watch.start();
  await engine.trainBatch(next);
  const timeline = watch.stop();
  const { elements, bytes } = meter.read();
  const most = (...names: readonly string[]) => Math.max(...timeline.map((moment) => sumOf(moment, names)));
  return {
    paramsBytes: watch.highestOf(owners.parameters),
    gradsBytes: watch.highestOf(owners.gradients),
    optimizerBytes: watch.highestOf(owners.optimizer),
    modelStateBytes: watch.modelStateBytes(),
    activationBytes: most(owners.activations, workingOwner),
    gatheredBytes: most(owners.gathered),
    gradientBufferBytes: most(owners.gradientBuffer),
    peakBytes: Math.max(atStart, watch.peakBytes) - liveBefore,
    elementsSent: elements,
    bytesSent: bytes,
    timeline,
  };
}

function sumOf({ bytes }: MemoryMoment, names: readonly string[]): number {
  return names.reduce((sum, name) => sum + (bytes[name] ?? 0), 0);
}
