/** How things are said: numbers, tables, progress, errors, and what a Ctrl-C is. */
import { PassThrough } from 'node:stream';
import { DsError } from '@ds/core-native';
import { parseCount, parsePositive } from './arguments';
import { exitCodeOf } from './exit-codes';
import { formatBytes, formatCount, formatNumber, formatSeconds, plural } from './format';
import { Interrupt } from './interrupt';
import { startProgress } from './progress';
import { describeError } from './report-error';
import { formatTable } from './table';

describe('numbers', () => {
  it.each([
    [0, '0'],
    [0.00123, '0.00123'],
    [0.000123, '1.23e-4'],
    [0.001, '0.00100'],
    [12.345, '12.3'],
    [1234.5, '1235'],
    [3e6, '3e6'],
    [-0.5, '-0.500'],
    [Number.NaN, 'NaN'],
  ])('%d is written with three digits as %s', (value, text) => expect(formatNumber(value)).toBe(text));

  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [999.6, '1.00 kB'],
    [1500, '1.50 kB'],
    [99_960, '100 kB'],
    [999_499_999, '999 MB'],
    [999_500_000, '1.00 GB'],
    [7.2e15, '7.20 PB'],
  ])('%d bytes are %s', (value, text) => expect(formatBytes(value)).toBe(text));

  it('are counted and timed as people do', () => {
    expect([912, 4_257_792, 176e9].map(formatCount)).toEqual(['912', '4.26 M', '176 B']);
    expect([0.0004, 12.34, 245, 7800, Number.NaN].map(formatSeconds)).toEqual([
      '0 ms',
      '12.3 s',
      '4 min 05 s',
      '2 h 10 min',
      '?',
    ]);
    expect([plural(1, 'rank'), plural(2, 'rank')]).toEqual(['1 rank', '2 ranks']);
  });

  it.each(['7.5e9', '10_000', '0'])('%s is a count on the command line', (text) => {
    expect(parseCount(text)).toBe(Number(text.replaceAll('_', '')));
  });

  it.each(['1.5', '-1', '', 'x', '1e400'])('%j is no count', (text) => expect(() => parseCount(text)).toThrow('whole'));
  it.each(['0', '-1', '', 'x'])('%j is not above 0', (text) => expect(() => parsePositive(text)).toThrow('above 0'));
});

describe('a table', () => {
  it('aligns its first column to the left and the others to the right', () => {
    const table = formatTable(
      [{ title: 'what' }, { title: 'n' }],
      [
        ['rows', '10'],
        ['x', '9'],
      ],
    );
    expect(table).toBe('what   n\nrows  10\nx      9');
  });
});

describe('progress', () => {
  function collect(tty: boolean) {
    const stream = Object.assign(new PassThrough(), {
      isTTY: tty,
      columns: 120,
      cursorTo() {},
      clearLine() {},
      moveCursor() {},
    });
    let text = '';
    stream.on('data', (bytes) => {
      text += bytes;
    });
    return { stream: stream as unknown as NodeJS.WriteStream, read: () => text };
  }

  it('is a line now and then where there is no terminal, and the last state in any case', () => {
    const { stream, read } = collect(false);
    const progress = startProgress({ title: 'training', total: 100, unit: 'step', stream });
    for (let step = 1; step <= 60; step++) progress.update(step, { loss: '4.2' });
    progress.note('saved');
    progress.stop();
    expect(read()).toBe('training: step 1/100  loss 4.2\nsaved\ntraining: step 60/100  loss 4.2\n');
  });

  it('is a bar on a terminal, with as many facts as fit', () => {
    const { stream, read } = collect(true);
    const progress = startProgress({ title: 'training', total: 10, unit: 'step', stream });
    progress.update(3, { loss: '4.2', more: 'x'.repeat(200) });
    progress.stop();
    expect(read()).toContain('3/10 steps');
    expect(read()).toContain('loss 4.2');
    expect(read()).not.toContain('xxx');
  });

  it('is nothing when quiet', () => {
    const { stream, read } = collect(true);
    const progress = startProgress({ title: 'training', total: 10, unit: 'step', stream, quiet: true });
    progress.update(3);
    progress.note('saved');
    progress.stop();
    expect(read()).toBe('');
  });
});

describe('an error', () => {
  it('of ours keeps code and hint', () => {
    const error = new DsError({ code: 'OOM', op: 'gather', expected: '1 GB', actual: '2 MB', hint: 'use stage 3' });
    expect(describeError(error)).toEqual({
      code: 'OOM',
      message: 'gather: expected 1 GB, got 2 MB',
      hint: 'use stage 3',
    });
    expect(exitCodeOf(error)).toBe(1);
  });

  it('of the file system is one of reading or writing', () => {
    const error = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    expect(describeError(error)).toEqual({
      code: 'IO',
      message: 'ENOSPC: no space left on device, write',
      hint: expect.stringContaining('free some space'),
    });
  });

  it('that nobody foresaw asks to be reported', () => {
    expect(describeError(new TypeError('x is not a function'))).toMatchObject({ code: 'INTERNAL' });
    expect(describeError('text')).toMatchObject({ code: 'INTERNAL', message: 'text' });
  });

  it('ends with the code that says whether anything was started, or was interrupted', () => {
    const error = (code: 'CONFIG' | 'ABORTED') => new DsError({ code, op: 'x', expected: 'y', actual: 'z' });
    expect([exitCodeOf(error('CONFIG')), exitCodeOf(error('ABORTED')), exitCodeOf(new Error('x'))]).toEqual([
      2, 130, 1,
    ]);
  });
});

describe('an interrupt', () => {
  it('asks once for signals that come together, and tells at a later one', () => {
    let now = 1000;
    const clock = jest.spyOn(Date, 'now').mockImplementation(() => now);
    let asked = 0;
    const before = process.listenerCount('SIGINT');
    {
      using interrupt = new Interrupt(() => {
        asked++;
      });
      process.emit('SIGINT');
      now += 100;
      process.emit('SIGINT');
      process.emit('SIGTERM');
      expect([asked, interrupt.signal.aborted]).toEqual([1, false]);
      now += 1000;
      process.emit('SIGINT');
      expect([asked, interrupt.signal.aborted]).toEqual([1, true]);
    }
    expect(process.listenerCount('SIGINT')).toBe(before);
    clock.mockRestore();
  });
});
