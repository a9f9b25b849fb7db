/** For --completion: the script that a shell reads to complete both of our commands. */

import type { Shell } from '../options.js';
import { bashScript } from './bash.js';
import { fishScript } from './fish.js';
import { zshScript } from './zsh.js';

const SCRIPTS: Readonly<Record<Shell, () => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export const completionScript = (shell: Shell): string => SCRIPTS[shell]();
