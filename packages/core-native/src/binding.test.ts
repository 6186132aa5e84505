import { readFileSync } from 'node:fs';
import path from 'node:path';
import { native } from './loader';

describe('the native boundary', () => {
  const source = readFileSync(path.join(__dirname, 'binding.ts'), 'utf8');

  it('types every exported function, and exports every typed one', () => {
    const typed = [...source.matchAll(/^ {2}(\w+)\(/gm)].map((m) => m[1]).sort();
    const exported = Object.keys(native).filter((name) => typeof Reflect.get(native, name) === 'function');
    expect(typed).toEqual(exported.sort());
  });

  it('types every op with the arguments that the addon reads', () => {
    const letters: Record<string, string> = { Id: 't', OptionalId: 'o', boolean: 'b', number: '[di]' };
    for (const [op, signature] of Object.entries(native.signatures)) {
      const types = new RegExp(`^ {2}${op}\\(([^)]*)\\)`, 'm').exec(source)?.[1]?.split(/,\s*/).filter(Boolean) ?? [];
      const pattern = types
        .slice(1)
        .map((argument) => letters[argument.split(': ')[1]!] ?? '?')
        .join('');
      expect(`${op}(${signature})`).toMatch(new RegExp(`^${op}\\(${pattern}\\)$`));
    }
  });
});
