import { objectSource, textSource } from './json-source';

describe('a JSON text', () => {
  const text = '// head\r\n{\r\n  "a": 1, /* c */ "b": [10,\r\n    { "c": null }, ],\r\n}\r\n';
  const source = textSource(text, 'x.json');

  it('may have comments, trailing commas, a byte order mark and Windows line ends', () => {
    expect(source.faults).toEqual([]);
    expect(source.value).toEqual({ a: 1, b: [10, { c: null }] });
    expect(textSource(`\ufeff${text}`, 'x.json').value).toEqual(source.value);
  });

  it('knows where keys and values stand, counted from 1', () => {
    expect(source.keyPosition(['a'])).toEqual({ line: 3, column: 3 });
    expect(source.valuePosition(['a'])).toEqual({ line: 3, column: 8 });
    expect(source.keyPosition(['b', 1, 'c'])).toEqual({ line: 4, column: 7 });
    expect(source.valuePosition(['b', 1, 'c'])).toEqual({ line: 4, column: 12 });
    expect(source.valuePosition(['b', 0])).toEqual({ line: 3, column: 25 });
  });

  it('answers for what is missing with the nearest parent that is there', () => {
    expect(source.valuePosition(['b', 1, 'd', 'e'])).toEqual({ line: 4, column: 5 });
    expect(source.valuePosition(['b', 7])).toEqual({ line: 3, column: 24 });
    expect(source.valuePosition(['z'])).toEqual({ line: 2, column: 1 });
  });

  it.each([
    ['', 'a value', 'the end of the file', 1, 1],
    ['{"a": tru}', 'a JSON value', 'tru', 1, 7],
    ['{"a": 1', 'a "}" that closes the object', 'the end of the file', 1, 8],
    ['{"a" 1}', 'a ":" after the key', '1', 1, 6],
    ['{"a": 1}\n}', 'nothing after the closing brace', '}', 2, 1],
    ['{\n"a": [1, 2\n}', 'a "," between two entries', '}', 3, 1],
    ['{"a": "b\n}', 'a string that ends with a double quote on its line', '"b', 1, 7],
  ])('%j is faulty at its place', (faulty, expected, found, line, column) => {
    const { faults, value } = textSource(faulty, 'x.json');
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({ kind: 'syntax', expected, found, position: { line, column } });
    expect(value).toBeUndefined();
  });

  it('names both lines of a key that stands twice, and takes the last', () => {
    const twice = textSource('{"a": 1,\n "b": {"c": 1, "c": 2},\n "a": 3}', 'x.json');
    expect(twice.value).toEqual({ a: 3, b: { c: 2 } });
    expect(twice.faults.map(({ path, position, found }) => [path, position, found])).toEqual([
      [['b', 'c'], { line: 2, column: 16 }, 'a second "c" (the first is on line 2)'],
      [['a'], { line: 3, column: 2 }, 'a second "a" (the first is on line 1)'],
    ]);
    expect(twice.valuePosition(['a'])).toEqual({ line: 3, column: 7 });
  });

  it('keeps a key named __proto__ a key', () => {
    const { value } = textSource('{"__proto__": {"polluted": true}}', 'x.json');
    expect(Object.keys(value as object)).toEqual(['__proto__']);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });
});

describe('an object of a program', () => {
  it('has no positions', () => {
    const source = objectSource({ a: 1 });
    expect([source.file, source.keyPosition(['a']), source.valuePosition(['a'])]).toEqual([null, null, null]);
  });
});
