import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['dist/', 'native-bindings/build/', 'node_modules/', 'coverage/', 'docs/api/'] },
  js.configs.recommended,
  {
    // What runs before anything of ours is loaded: CommonJS starts sooner.
    files: ['**/*.cjs'],
    languageOptions: {
      globals: { __dirname: 'readonly', console: 'readonly', process: 'readonly' },
    },
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      eqeqeq: 'error',
    },
  },
  {
    // node:test's describe and it return promises that the runner itself awaits.
    files: ['test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            { from: 'package', name: ['describe', 'it', 'test', 'suite'], package: 'node:test' },
          ],
        },
      ],
    },
  },
  {
    // A folder is a layer, and imports go one way: fuse -> disk <- nbd (see ARCHITECTURE.md).
    files: ['src/fuse/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: ['**/nbd/*', '**/server/*', '**/cli/*', '**/control/*'] },
      ],
    },
  },
  {
    files: ['src/nbd/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: ['**/fuse/*', '**/server/*', '**/cli/*', '**/partitions/*', '**/control/*'] },
      ],
    },
  },
  {
    files: ['src/disk/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            '**/fuse/*',
            '**/nbd/*',
            '**/server/*',
            '**/cli/*',
            '**/transport/*',
            '**/partitions/*',
            '**/control/*',
          ],
        },
      ],
    },
  },
  {
    files: ['src/partitions/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: ['**/fuse/*', '**/nbd/*', '**/server/*', '**/cli/*', '**/transport/*'] },
      ],
    },
  },
  {
    files: ['src/images/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            '**/fuse/*',
            '**/nbd/*',
            '**/server/*',
            '**/cli/*',
            '**/disk/*',
            '**/transport/*',
            '**/partitions/*',
          ],
        },
      ],
    },
  },
  {
    files: ['src/transport/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            '**/fuse/*',
            '**/nbd/*',
            '**/server/*',
            '**/cli/*',
            '**/disk/*',
            '**/partitions/*',
          ],
        },
      ],
    },
  },
  {
    // The library uses all that the command is made of, and not the command.
    files: ['src/api/**/*.ts', 'src/index.ts', 'src/disk-api.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['**/cli/*'] }] },
  },
  {
    files: ['src/server/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: ['**/fuse/*', '**/cli/*', '**/partitions/*', '**/control/*'] },
      ],
    },
  },
  {
    files: ['src/observe/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            '**/fuse/*',
            '**/nbd/*',
            '**/server/*',
            '**/cli/*',
            '**/disk/*',
            '**/transport/*',
            '**/partitions/*',
            '**/control/*',
          ],
        },
      ],
    },
  },
  {
    files: ['src/control/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            '**/fuse/*',
            '**/nbd/*',
            '**/server/*',
            '!**/server/listen.js',
            '**/cli/*',
            '**/disk/*',
            '**/transport/*',
            '**/partitions/*',
          ],
        },
      ],
    },
  },
);
