import js from '@eslint/js';
import tseslint from 'typescript-eslint';

/**
 * A folder is a layer, and imports go one way: fuse -> disk <- nbd (see ARCHITECTURE.md). Each may import what
 * stands here, of itself all, and of src itself all. The commands, in cli, may import anything.
 */
const LAYERS = [
  { folder: 'disk', imports: ['observe'] },
  { folder: 'partitions', imports: ['disk'] },
  { folder: 'fuse', imports: ['disk', 'partitions', 'observe'] },
  { folder: 'nbd', imports: ['disk', 'transport'] },
  {
    folder: 'server',
    imports: ['disk', 'transport', 'nbd/constants.js', 'nbd/errors.js', 'nbd/printing.js'],
  },
  { folder: 'images', imports: [] },
  { folder: 'transport', imports: [] },
  { folder: 'observe', imports: [] },
  { folder: 'control', imports: ['observe', 'server/listen.js'] },
  {
    // The library uses all that the command is made of, and not the command.
    folder: 'api',
    more: ['src/index.ts', 'src/disk-api.ts'],
    imports: [
      ...['disk', 'partitions', 'fuse', 'nbd', 'server'],
      ...['images', 'transport', 'observe', 'control'],
    ],
  },
];

function layer({ folder, imports, more = [] }) {
  const others = [...LAYERS.map((other) => other.folder), 'cli'].filter(
    (other) => other !== folder && !imports.includes(other),
  );
  const files = imports.filter((path) => path.includes('/'));
  return {
    files: [`src/${folder}/**/*.ts`, ...more],
    rules: {
      'no-restricted-imports': [
        'error',
        // Of what is restricted, those behind a ! are not: they have to come last.
        {
          patterns: [
            ...others.map((other) => `**/${other}/*`),
            ...files.map((path) => `!**/${path}`),
          ],
        },
      ],
    },
  };
}

export default tseslint.config(
  { ignores: ['dist/', 'native-bindings/build/', 'node_modules/', 'docs/api/'] },
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
  ...LAYERS.map(layer),
);
