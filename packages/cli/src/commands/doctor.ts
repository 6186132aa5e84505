/** ds doctor: what this machine has, what is used, and why not more. Paste it into an issue. */
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { loadNative, probeCpu, probeProduct, probeThreads } from '../doctor/compute';
import { probeCuda, probeNccl, readCuda } from '../doctor/cuda';
import type { Finding } from '../doctor/finding';
import { probeMemory, probeNode, probeSharedMemory, probeSystem, readMemory } from '../doctor/system';
import { exitCodes } from '../terminal/exit-codes';
import { type Output, type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

export function register(program: Command): void {
  withOutputOptions(program.command('doctor').description(summaryOf('doctor')))
    .addHelpText('after', '\nExamples:\n  $ ds doctor\n  $ ds doctor --json | jq .cpu\n')
    .action((options: OutputOptions) => diagnose(outputOf(options)));
}

function diagnose(output: Output): void {
  const { native, finding } = loadNative();
  const cuda = readCuda(native);
  const findings: Finding[] = [
    { name: 'ds', status: 'info', found: (require('../../package.json') as { version: string }).version },
    probeNode(),
    probeSystem(),
    finding,
    probeCpu(native),
    probeThreads(native),
    probeProduct(native),
    probeMemory(),
    probeSharedMemory(),
    probeCuda(cuda, native),
    probeNccl(native),
  ];
  const healthy = findings.every(({ status }) => status !== 'bad');
  const report = {
    healthy,
    node: process.versions.node,
    platform: `${process.platform}-${process.arch}`,
    cpu: native?.cpuFeatures() ?? null,
    threads: native?.threads() ?? null,
    memory: readMemory(),
    cuda,
    findings,
  };
  output.result(report, () => formatFindings(findings, output));
  if (!healthy) process.exitCode = exitCodes.failed;
}

function formatFindings(findings: readonly Finding[], { colors }: Output): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const marks = { good: colors.green('ok'), info: '  ', warn: colors.yellow('! '), bad: colors.red('x ') };
  return findings
    .map(({ name, status, found, chosen, why }) => {
      const lines = [`${marks[status]} ${colors.bold(name.padEnd(width))}  ${found}`];
      if (chosen !== undefined) lines.push(`uses ${colors.cyan(chosen)}${why ? `: ${why}` : ''}`);
      else if (why !== undefined) lines.push(why);
      return lines.join(`\n   ${' '.repeat(width)}  `);
    })
    .join('\n');
}
