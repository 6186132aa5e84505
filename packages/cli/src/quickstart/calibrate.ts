/** Measures how fast this machine takes a step, so that the schedule ends when the minutes do. */
import { runTraining } from '../train/run-training';
import { type RecipeOptions, writeRecipe } from './recipe';

/** Steps to measure; the first ones, which warm up, are left out. */
const measuredSteps = 20;
const warmUpSteps = 6;
/** Part of the time that evaluations and checkpoints take. */
const shareForSteps = 0.92;

/** Gives the steps that fit, or null when somebody stopped the measurement. */
export async function stepsThatFit(
  minutes: number,
  recipe: Omit<RecipeOptions, 'steps'>,
  onNote: (text: string) => void,
): Promise<number | null> {
  const seconds: number[] = [];
  const end = await runTraining({
    config: writeRecipe({ ...recipe, steps: measuredSteps }),
    overrides: { resume: false },
    keep: false,
    onRecord: (record) => {
      if (record.type === 'step') seconds.push(record.seconds);
    },
    onNote,
  });
  if (end.reason === 'stopped') return null;
  const [median = 1] = seconds
    .slice(warmUpSteps)
    .sort((a, b) => a - b)
    .slice((measuredSteps - warmUpSteps) >> 1);
  const steps = (minutes * 60 * shareForSteps) / median;
  // Round figures, and never so few that there is no curve to see.
  return Math.max(20, Math.floor(steps / 10) * 10);
}
