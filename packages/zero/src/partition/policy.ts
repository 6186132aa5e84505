/** One policy, not four engines: a stage is a row that says which state is cut over the data-parallel ranks. */
import type { ZeroStage } from '../estimate';

/** `none`: every rank holds all of it. `dp`: every rank holds 1/N. */
export type Placement = 'none' | 'dp';

export interface ShardPolicy {
  /** Master weights and moments. */
  readonly optim: Placement;
  readonly grad: Placement;
  /** Working weights. */
  readonly param: Placement;
}

/** Source: Rajbhandari et al. 2020, sec. 5: P_os, P_os+g, P_os+g+p. */
export const stagePolicies: Readonly<Record<ZeroStage, ShardPolicy>> = {
  0: { optim: 'none', grad: 'none', param: 'none' },
  1: { optim: 'dp', grad: 'none', param: 'none' },
  2: { optim: 'dp', grad: 'dp', param: 'none' },
  3: { optim: 'dp', grad: 'dp', param: 'dp' },
};
