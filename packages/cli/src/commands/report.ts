/** ds report: a run as one HTML page. */
import type { Command } from 'commander';
import { summaryOf } from '../catalog';
import { writeReport } from '../report/write-report';
import { type OutputOptions, outputOf, withOutputOptions } from '../terminal/output';

interface ReportOptions extends OutputOptions {
  readonly out?: string;
}

export function register(program: Command): void {
  const command = program.command('report').description(summaryOf('report'));
  command.argument('<run>', 'output folder of a training run').option('-o, --out <file>', 'default RUN/report.html');
  withOutputOptions(command)
    .addHelpText('after', '\nExamples:\n  $ ds report runs/quickstart\n')
    .action((run: string, options: ReportOptions) => {
      const file = writeReport(run, options.out);
      outputOf(options).result({ report: file }, () => file);
    });
}
