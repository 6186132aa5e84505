/** The arguments that every stage's program takes, and some of its own. */
import { parseArgs } from 'node:util';

/** Gives `{ out, filter, tiny, … }`: the folder of results, texts that names must hold, and whether sizes are an emulation's. */
export function stageArguments(own = {}) {
  const options = {
    out: { type: 'string', default: '.' },
    filter: { type: 'string', multiple: true, default: [] },
    tiny: { type: 'boolean', default: false },
    ...own,
  };
  return parseArgs({ options }).values;
}
