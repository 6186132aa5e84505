/** What the programs that time training steps share: the tokens, and the weights as a folder that a rival can load. */
import { ModelFolderWriter } from '@ds/io';
import { bloomConfigToJson, exportedName } from '@ds/nn';

/** The same tokens on both sides, from a formula. */
export function rowsOf(batch, length, vocabSize, rank = 0) {
  return Array.from({ length: batch }, (_, b) =>
    Int32Array.from(
      { length: length + 1 },
      (_, t) => (t * 7919 + (rank * batch + b) * 104729 + ((t * t) % 251)) % vocabSize,
    ),
  );
}

/** Writes the weights as a Hugging Face folder. All ranks gather, one of them writes. */
export async function exportFolder(engine, model, folder, writes = true) {
  const dtype = engine.config.paramDtype === 'bf16' ? 'bf16' : 'f32';
  const writer =
    writes &&
    ModelFolderWriter.create(folder, {
      config: bloomConfigToJson(model.config, 'float32'),
      tensors: model.parameters.map(({ name, shape }) => ({ name: exportedName(name), dtype, shape })),
      overwrite: true,
    });
  for (let unit = 0; unit < engine.plan.units.length; unit++) {
    const reads = engine.withFullUnit(unit, () =>
      engine.plan.units[unit].layout.places.map(({ parameter }) => [parameter.name, parameter.value.read()]),
    );
    for (const [name, values] of reads) {
      const { buffer, byteOffset, byteLength } = await values;
      if (writer) writer.write(exportedName(name), new Uint8Array(buffer, byteOffset, byteLength));
    }
  }
  if (writer) writer.finish();
}
