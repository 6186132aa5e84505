/** The part of our launcher that runs inside a rank. */
import { native } from '../loader';

/**
 * Ties the life of this process to that of the launcher that spawned it: the system kills it when the launcher is
 * gone, even by `kill -9`. Does nothing in a process that no launcher of ours has spawned.
 */
export function dieWithLauncher(): void {
  const launcher = Number(process.env.DS_LAUNCHER_PID ?? 0);
  // What this process spawns is its own affair.
  delete process.env.DS_LAUNCHER_PID;
  if (launcher === 0) return;
  if (native.die_with_parent(launcher)) return;
  // The parent is another process: the launcher has died already, or something like a shell stands in between.
  if (!isAlive(launcher)) process.kill(process.pid, 'SIGKILL');
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
