import { editDistance, nearestName } from './nearest-name';

describe('edit distance', () => {
  it.each([
    ['', '', 0],
    ['', 'abc', 3],
    ['stage', 'stage', 0],
    ['stagee', 'stage', 1],
    ['stge', 'stage', 1],
    ['stake', 'stage', 1],
    ['offlaod', 'offload', 1],
    ['kitten', 'sitting', 3],
    ['ab', 'ba', 1],
  ])('of %p and %p is %i, both ways', (a, b, distance) => {
    expect([editDistance(a, b), editDistance(b, a)]).toEqual([distance, distance]);
  });
});

describe('nearest name', () => {
  const names = ['stage', 'reduce_bucket_size', 'allgather_bucket_size', 'stage3_prefetch_bucket_size', 'bf16'];

  it.each([
    ['stagee', 'stage'],
    ['STAGE', 'stage'],
    ['reduce_bucketsize', 'reduce_bucket_size'],
    ['all_gather_bucket_size', 'allgather_bucket_size'],
    ['prefetch_bucket_size', 'stage3_prefetch_bucket_size'],
    ['bf61', 'bf16'],
  ])('of %p is %p', (name, nearest) => {
    expect(nearestName(name, names)).toBe(nearest);
  });

  it.each(['optimizer', 'x', 'fp16_mode'])('of %p is none', (name) => {
    expect(nearestName(name, names)).toBeNull();
  });

  it('prefers the closer of two', () => {
    expect(nearestName('steps', ['step', 'steps_per_print', 'steps'])).toBe('steps');
  });
});
