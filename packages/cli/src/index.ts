/** @ds/cli: the command `ds`, for programs that want to run it in their own process. */
export { main } from './main';
