/** One jest for every package: sources are transformed by swc, `@ds/x` resolves to the package's source, the addon is the built one. */
module.exports = {
  testEnvironment: '<rootDir>/test/support/node-env.cjs',
  testMatch: ['<rootDir>/packages/*/src/**/*.test.ts', '<rootDir>/test/**/*.test.ts'],
  moduleNameMapper: { '^@ds/([a-z-]+)$': '<rootDir>/packages/$1/src/index.ts' },
  modulePathIgnorePatterns: ['<rootDir>/packages/[^/]+/(dist|build|build-prebuild)', '<rootDir>/runs'],
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        jsc: { parser: { syntax: 'typescript' }, target: 'es2022' },
        module: { type: 'commonjs' },
        sourceMaps: 'inline',
      },
    ],
  },
  maxWorkers: 2,
  // A machine that is busy with other work is no failure; a hang still is.
  testTimeout: 60_000,
  workerIdleMemoryLimit: '4GB',
};
