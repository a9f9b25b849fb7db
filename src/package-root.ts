/** Where the package is installed, for what lies beside the code: the addon, the commands, package.json. */

import { join } from 'node:path';

// Seen from dist/src/, where the compiled file is, and from dist/bundle/, where the commands are.
export const PACKAGE_ROOT = join(import.meta.dirname, '..', '..');
