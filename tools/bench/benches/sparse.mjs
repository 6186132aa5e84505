/**
 * Block-sparse attention against our own dense flash attention, which has the same memory: so the ratio is that of the work left out.
 * Then its time at several densities, and a language model that trains with it at 4K tokens.
 */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { root } from '../../programs.mjs';

/** Where and how large: of every bench here, and of those on a GPU (cuda/sparse.mjs). */
const onCpu = { T: 16384, H: 2, D: 64, dtype: 'f32', device: 'cpu' };

/** How far a sum may be off, relative to the larger of it and 1: its dtype's rounding, in and behind the sum. */
const tolerances = { f32: 2e-5, bf16: 2e-2 };

/** Patterns of at most 6.25 % of what the dense op computes: all pairs, or those up to the diagonal where it is causal. */
const patterns = {
  window: (block, T) => ({
    mode: 'local_sliding_window',
    attention: 'bidirectional',
    num_sliding_window_blocks: odd((T / block) * 0.061),
  }),
  // Windows of the root of the number of blocks: the least that fixed can have, 2 / sqrt(N), which needs small blocks.
  fixed: (block, T) => ({ mode: 'fixed', num_local_blocks: Math.round(Math.sqrt(T / block)), num_global_blocks: 1 }),
  bslongformer: (block, T) => ({
    mode: 'bslongformer',
    num_sliding_window_blocks: odd((T / block) * 0.035),
    global_block_indices: firstBlocks(T / block, 0.012),
  }),
  bigbird: (block, T) => ({
    mode: 'bigbird',
    num_sliding_window_blocks: odd((T / block) * 0.03),
    num_global_blocks: firstBlocks(T / block, 0.008).length,
    num_random_blocks: Math.max(1, Math.floor((T / block) * 0.012)),
  }),
};

const odd = (n) => 2 * Math.floor((n - 1) / 2) + 1;
const firstBlocks = (blocks, part) => Array.from({ length: Math.max(1, Math.floor(blocks * part)) }, (_, i) => i);

/** What part of the pairs that dense attention computes the layout has. */
function shareOfDense(layout, drawing, causal) {
  if (!causal) return layout.density;
  const T = drawing.block * drawing.blocks;
  const { block, blocks: N, layouts, headLayout } = drawing;
  let pairs = 0;
  for (const p of headLayout)
    for (let r = 0; r < N; r++)
      for (let c = 0; c <= r; c++) if (layouts[p][r * N + c]) pairs += c === r ? (block * (block + 1)) / 2 : block ** 2;
  return pairs / ((headLayout.length * T * (T + 1)) / 2);
}

/** One of the two ops at work, forward and backward. */
class AttentionSide {
  constructor(core, name, { causal, drawing }, size) {
    Object.assign(this, { core, name, causal, drawing, size });
  }

  start() {
    const { Tensor, BlockLayout, fillNormal } = this.core;
    const { T, H, D, dtype, device } = this.size;
    this.layout = this.drawing && new BlockLayout(this.drawing);
    this.qkv = Tensor.empty([1, T, H * 3 * D], { dtype, device });
    this.dout = Tensor.empty([1, T, H * D], { dtype, device });
    fillNormal(this.qkv, { std: 1, seed: 1 });
    fillNormal(this.dout, { std: 1, seed: 2 });
  }

  iterate() {
    const { core, causal, qkv, dout, layout } = this;
    const { H } = this.size;
    const { out, lse } = layout
      ? core.sparseAttention(qkv, layout, { causal })
      : core.attention(qkv, { heads: H, causal });
    const saved = { qkv, out, lse };
    const dqkv = layout
      ? core.sparseAttentionBackward(dout, saved, layout, { causal })
      : core.attentionBackward(dout, saved, { heads: H, causal });
    return { out, lse, dqkv };
  }

  async run(iterations) {
    for (let i = 0; i < iterations; i++) this.core.scope(() => void this.iterate());
    await this.core.device(this.size.device).stream.join();
  }

  stop() {
    this.layout?.[Symbol.dispose]();
    this.qkv?.dispose();
    this.dout?.dispose();
  }

  /** Compares some rows of out and of each gradient with plain sums in double over the drawing. */
  async expectRight() {
    const { core, causal, drawing } = this;
    const { T, H, D, dtype } = this.size;
    const { block, blocks: N, layouts, headLayout } = drawing;
    const results = core.scope(() => this.iterate());
    const [qkv, dout] = [await this.qkv.numbers(), await this.dout.numbers()];
    const [out, lse, dqkv] = [await results.out.numbers(), await results.lse.numbers(), await results.dqkv.numbers()];
    for (const tensor of Object.values(results)) tensor.dispose();
    const at = (t, h, which) => ((t * H + h) * 3 + which) * D;
    const rowOf = (values, from) => values.subarray(from, from + D);
    const dot = (a, b) => a.reduce((sum, x, d) => sum + x * b[d], 0);
    const sees = (h, i, j) =>
      layouts[headLayout[h]][Math.floor(i / block) * N + Math.floor(j / block)] && (!causal || j <= i);
    const scale = 1 / Math.sqrt(D);
    const score = (h, i, j) => scale * dot(rowOf(qkv, at(i, h, 0)), rowOf(qkv, at(j, h, 1)));
    const gradient = (h, i, j) => {
      const p = Math.exp(score(h, i, j) - lse[h * T + i]);
      const [g, o] = [rowOf(dout, (i * H + h) * D), rowOf(out, (i * H + h) * D)];
      return { p, ds: p * (dot(g, rowOf(qkv, at(j, h, 2))) - dot(g, o)) };
    };
    const compare = (what, got, want) => {
      for (let d = 0; d < D; d++)
        if (!(Math.abs(got[d] - want[d]) <= tolerances[dtype] * Math.max(1, ...want.map(Math.abs))))
          throw new Error(`${what}[${d}] is ${got[d]}, not ${want[d]}`);
    };
    const zeros = () => new Float64Array(D);
    const add = (to, factor, row) => {
      for (let d = 0; d < D; d++) to[d] += factor * row[d];
    };
    for (const [h, t] of [
      [0, 0],
      [H - 1, 17],
      [0, T / 4 - 1],
      [H - 1, Math.floor(T * 0.55)],
      [0, T - 1],
    ]) {
      const [o, dq, dk, dv] = [zeros(), zeros(), zeros(), zeros()];
      for (let j = 0; j < T; j++) {
        if (sees(h, t, j)) {
          const { p, ds } = gradient(h, t, j);
          add(o, p, rowOf(qkv, at(j, h, 2)));
          add(dq, scale * ds, rowOf(qkv, at(j, h, 1)));
        }
        if (sees(h, j, t)) {
          const { p, ds } = gradient(h, j, t);
          add(dv, p, rowOf(dout, (j * H + h) * D));
          add(dk, scale * ds, rowOf(qkv, at(j, h, 0)));
        }
      }
      compare(`out of token ${t}`, rowOf(out, (t * H + h) * D), o);
      for (const [which, want] of [dq, dk, dv].entries())
        compare(`gradient ${which} of token ${t}`, rowOf(dqkv, at(t, h, which)), want);
    }
  }
}

const percent = (share) => `${(100 * share).toFixed(2)} %`;

/** A bench of a pattern against all pairs; `size` is like `onCpu`. */
export function againstDense(core, nn, { kind, block, causal, prefix = '' }, size = onCpu) {
  const { T, H, D, dtype, device } = size;
  const name = `${prefix}sparse/attention/${T / 1024}K/${kind}/block ${block}/${causal ? 'causal' : 'bidirectional'}`;
  return {
    name,
    make: () => {
      const drawing = nn.sparseLayout({ ...patterns[kind](block, T), block }, { heads: H, sequenceLength: T });
      const ours = new AttentionSide(core, 'ours', { causal, drawing }, size);
      const share = () => shareOfDense(ours.layout, drawing, causal);
      return {
        name,
        task: `forward and backward of ${H} heads of ${D}, ${T} tokens, ${dtype}, ${device === 'cpu' ? `${core.threads()} threads` : device} (rival: our dense flash attention, all pairs)`,
        ours: sideOf(ours, () => ({ share_of_dense_work: share() })),
        rival: sideOf(new AttentionSide(core, 'our dense flash attention', { causal }, size)),
        equal: async () => {
          if (share() > 0.0626) throw new Error(`${percent(share())} of the dense work`);
          await ours.expectRight();
        },
      };
    },
  };
}

/** The same band, narrower and wider: time should fall as its work does. */
function againstDenser(core, nn, block, part) {
  const { T, H } = onCpu;
  const name = `sparse/attention/16K/density/block ${block}/${part * 100} % vs 25 %`;
  const drawingOf = (density) =>
    nn.sparseLayout(
      {
        mode: 'local_sliding_window',
        attention: 'bidirectional',
        num_sliding_window_blocks: odd((T / block) * density),
        block,
      },
      { heads: H, sequenceLength: T },
    );
  return {
    name,
    make: () => {
      const ours = new AttentionSide(core, 'ours', { causal: false, drawing: drawingOf(part) }, onCpu);
      const rival = new AttentionSide(core, 'a band of 25 %', { causal: false, drawing: drawingOf(0.25) }, onCpu);
      return {
        name,
        task: `forward and backward of a band, ${T} tokens, f32, ${core.threads()} threads (rival: a wider band; in proportion the ratio is ratio_of_work)`,
        ours: sideOf(ours, () => ({
          density: ours.layout.density,
          ratio_of_work: rival.layout.density / ours.layout.density,
        })),
        rival: sideOf(rival),
        equal: () => ours.expectRight(),
      };
    },
  };
}

function sideOf(side, facts) {
  return {
    name: side.name,
    start: () => side.start(),
    run: (n) => side.run(n),
    stop: () => side.stop(),
    ...(facts ? { facts } : {}),
  };
}

/** The sources of this repository as bytes: text with words, habits, and names that come back far behind. */
function sourceBytes() {
  const folder = path.join(root, 'packages');
  return Buffer.concat(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => /^[a-z-]+\/(src|csrc)\/.*\.(ts|h|cpp)$/.test(file))
      .sort()
      .map((file) => readFileSync(path.join(folder, file))),
  );
}

const LENGTH = 4096;
const STEPS = 240;
const LAST = 40;

/** A small BLOOM on bytes at 4K tokens. One head has ALiBi's gentlest slope, so that no far block is negligible to the dense op either. */
class LanguageModelSide {
  constructor(core, nn, zero, name, sparse) {
    Object.assign(this, { core, nn, zero, name, sparse, text: sourceBytes(), losses: [] });
  }

  async start() {
    const { nn, zero, core } = this;
    this.model = new nn.Bloom({
      ...nn.bloomPresets['bloom-tiny'],
      vocabSize: 256,
      hiddenSize: 64,
      heads: 1,
      layers: 2,
    });
    this.group = core.ProcessGroup.single();
    const config = {
      train_batch_size: 1,
      optimizer: { type: 'AdamW', params: { lr: 3e-3 } },
      seed: 1,
      ...(this.sparse ? { sparse_attention: this.sparse } : {}),
    };
    this.engine = await zero.initialize({ model: this.model, config, group: this.group });
  }

  async run(steps) {
    for (let i = 0; i < steps; i++) {
      const from = (this.losses.length * 7919 * 61) % (this.text.length - LENGTH - 1);
      const rows = [this.text.subarray(from, from + LENGTH + 1)];
      this.losses.push((await this.engine.trainBatch(() => ({ rows }))).loss);
    }
  }

  /** Mean loss of the last steps of those that both sides take. */
  async learn() {
    await this.run(STEPS);
    return this.losses.slice(-LAST).reduce((sum, loss) => sum + loss, 0) / LAST;
  }

  stop() {
    this.engine[Symbol.dispose]();
    this.model[Symbol.dispose]();
    this.group[Symbol.dispose]();
  }
}

function languageModel(core, nn, zero, name, sparse) {
  return {
    name: `sparse/train/4K/${name}`,
    make: () => {
      const ours = new LanguageModelSide(core, nn, zero, 'ours', sparse);
      const rival = new LanguageModelSide(core, nn, zero, 'dense attention', undefined);
      const facts = {};
      return {
        name: `sparse/train/4K/${name}`,
        task: `training step of a BLOOM of 2 layers of 64 on ${LENGTH} bytes of source text, after ${STEPS} steps with losses within 0.03 nats (rival: dense attention)`,
        ours: { ...sideOf(ours, () => facts) },
        rival: sideOf(rival),
        amount: LENGTH,
        unit: 'tokens/s',
        equal: async () => {
          const [a, b] = [await ours.learn(), await rival.learn()];
          Object.assign(facts, { loss: a, dense_loss: b });
          if (!(a - b <= 0.03)) throw new Error(`a loss of ${a}, dense ${b}`);
        },
      };
    },
  };
}

export function benches({ core, require }) {
  const nn = require('@ds/nn');
  const zero = require('@ds/zero');
  const kinds = Object.keys(patterns);
  return [
    ...kinds.flatMap((kind) =>
      (kind === 'fixed' ? [16] : [64, 16]).flatMap((block) =>
        [false, true].map((causal) => againstDense(core, nn, { kind, block, causal })),
      ),
    ),
    ...[64, 16].flatMap((block) => [0.03125, 0.0625, 0.125].map((part) => againstDenser(core, nn, block, part))),
    languageModel(core, nn, zero, 'fixed', {
      mode: 'fixed',
      block: 16,
      num_local_blocks: 16,
      attention: 'unidirectional',
    }),
    languageModel(core, nn, zero, 'bslongformer', { mode: 'bslongformer', block: 64, num_sliding_window_blocks: 7 }),
  ];
}
