/** What `launch` lets Node load before a rank's script: no rank outlives its launcher, however early that ends. */
import { dieWithLauncher } from './rank';

dieWithLauncher();
