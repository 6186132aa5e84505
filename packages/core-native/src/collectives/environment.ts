/** Who this process is among the ranks: from our launcher, torchrun's variables, Open MPI, MPICH or Slurm. */
import os = require('node:os');

import { DsError } from '../errors';

export interface RankEnvironment {
  rank: number;
  world: number;
  localRank: number;
  localWorld: number;
  /** The job's shared memory, inherited from our launcher. */
  fd?: number;
  /** What ranks without it meet by: the same for all ranks of a job, another for every job. */
  session?: string;
}

type Variables = Readonly<Record<string, string | undefined>>;

const OP = 'ProcessGroup.fromEnvironment';

/**
 * Reads the place of this process in its job; `undefined` for a program that was started alone.
 *
 * @throws CONFIG for variables that contradict each other, UNSUPPORTED for ranks on more than one host
 */
export function readRankEnvironment(env: Variables = process.env): RankEnvironment | undefined {
  const found = fromLauncher(env) ?? fromTorchrun(env) ?? fromOpenMpi(env) ?? fromSlurm(env) ?? fromPmi(env);
  if (!found) return undefined;
  if (found.rank >= found.world)
    throw configError(`a rank below the ${found.world} ranks of the world`, String(found.rank));
  if (found.localWorld < found.world) throw otherHost(`${found.localWorld} of ${found.world} ranks on this one`);
  return env.DS_SESSION && found.fd === undefined ? { ...found, session: env.DS_SESSION } : found;
}

/** Which of the ranks on this host this process is, and how many there are, as far as its environment says. */
export function readLocalPlace(env: Variables = process.env): { rank: number; ranks: number } {
  const names = [
    ['LOCAL_RANK', 'LOCAL_WORLD_SIZE'],
    ['OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_SIZE'],
    ['SLURM_LOCALID', 'SLURM_STEP_TASKS_PER_NODE'],
    ['MPI_LOCALRANKID', 'MPI_LOCALNRANKS'],
  ] as const;
  const found = names.find(([rank]) => env[rank] !== undefined);
  if (!found) return { rank: 0, ranks: 1 };
  const rank = count(env, found[0]);
  return { rank, ranks: Math.max(rank + 1, Number.parseInt(env[found[1]] ?? '1', 10)) };
}

function fromLauncher(env: Variables): RankEnvironment | undefined {
  if (env.DS_COMM_FD === undefined) return undefined;
  const world = count(env, 'WORLD_SIZE');
  const rank = count(env, 'RANK');
  return { rank, world, localRank: rank, localWorld: world, fd: count(env, 'DS_COMM_FD') };
}

function fromTorchrun(env: Variables): RankEnvironment | undefined {
  if (env.RANK === undefined && env.WORLD_SIZE === undefined) return undefined;
  const world = count(env, 'WORLD_SIZE');
  const rank = count(env, 'RANK');
  if (world > 1 && env.DS_SESSION === undefined && env.MASTER_PORT === undefined)
    throw configError('MASTER_ADDR and MASTER_PORT (or DS_SESSION) beside RANK and WORLD_SIZE', 'none');
  if (world > 1 && env.MASTER_ADDR && !isThisHost(env.MASTER_ADDR))
    throw otherHost(`MASTER_ADDR ${env.MASTER_ADDR}, which is no address of this one`);
  return {
    rank,
    world,
    localRank: count(env, 'LOCAL_RANK', rank),
    localWorld: count(env, 'LOCAL_WORLD_SIZE', world),
    session: `${env.MASTER_ADDR ?? ''}:${env.MASTER_PORT ?? ''}:${env.TORCHELASTIC_RUN_ID ?? ''}`,
  };
}

function fromOpenMpi(env: Variables): RankEnvironment | undefined {
  if (env.OMPI_COMM_WORLD_RANK === undefined) return undefined;
  return {
    rank: count(env, 'OMPI_COMM_WORLD_RANK'),
    world: count(env, 'OMPI_COMM_WORLD_SIZE'),
    localRank: count(env, 'OMPI_COMM_WORLD_LOCAL_RANK'),
    localWorld: count(env, 'OMPI_COMM_WORLD_LOCAL_SIZE'),
    session: `ompi:${env.PMIX_NAMESPACE ?? env.OMPI_MCA_ess_base_jobid ?? `parent ${process.ppid}`}`,
  };
}

/** A job step of srun; a batch script that runs without srun has no step. */
function fromSlurm(env: Variables): RankEnvironment | undefined {
  if (env.SLURM_PROCID === undefined || env.SLURM_STEP_ID === undefined || env.SLURM_STEP_NUM_TASKS === undefined)
    return undefined;
  const world = count(env, 'SLURM_STEP_NUM_TASKS');
  const nodes = count(env, 'SLURM_STEP_NUM_NODES', 1);
  if (nodes > 1) throw otherHost(`a job step on ${nodes} nodes (SLURM_STEP_NUM_NODES)`);
  return {
    rank: count(env, 'SLURM_PROCID'),
    world,
    localRank: count(env, 'SLURM_LOCALID'),
    localWorld: world,
    session: `slurm:${env.SLURM_JOB_ID}.${env.SLURM_STEP_ID}`,
  };
}

/** MPICH and its relatives (Hydra). Their ranks on one host have one parent. */
function fromPmi(env: Variables): RankEnvironment | undefined {
  if (env.PMI_RANK === undefined) return undefined;
  const world = count(env, 'PMI_SIZE');
  const rank = count(env, 'PMI_RANK');
  return {
    rank,
    world,
    localRank: count(env, 'MPI_LOCALRANKID', rank),
    localWorld: count(env, 'MPI_LOCALNRANKS', world),
    session: `pmi:${env.PMI_JOBID ?? `parent ${process.ppid}`}`,
  };
}

function count(env: Variables, name: string, otherwise?: number): number {
  const text = env[name];
  if (text === undefined && otherwise !== undefined) return otherwise;
  if (text === undefined || !/^\d{1,9}$/.test(text)) throw configError(`a whole number in ${name}`, text ?? 'nothing');
  return Number(text);
}

/** Names are taken to be this host unless they are its neighbours' numbers: a lookup could block for seconds. */
function isThisHost(address: string): boolean {
  const numeric = /^[\d.]+$|:/.test(address);
  const own = Object.values(os.networkInterfaces()).flatMap((list) => list?.map((entry) => entry.address) ?? []);
  return !numeric || address.startsWith('127.') || address === '0.0.0.0' || own.includes(address);
}

function configError(expected: string, actual: string): DsError {
  const hint = 'start the ranks with `ds launch`, torchrun, mpirun or srun, which set these variables';
  return new DsError({ code: 'CONFIG', op: OP, expected, actual, hint });
}

function otherHost(actual: string): DsError {
  const hint = 'this build connects ranks through the memory of one host; start all ranks on one';
  return new DsError({ code: 'UNSUPPORTED', op: OP, expected: 'all ranks on one host', actual, hint });
}
