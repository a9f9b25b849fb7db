/** SIGUSR1: a summary on standard error, at any time. */

import { say } from './messages.js';

export class SummarySignal {
  /** Prints it. */
  show = (): void => say('the disk is not mounted yet');

  /** From now on the signal neither ends the process nor, as Node has it, opens it to a debugger. */
  constructor() {
    process.on('SIGUSR1', () => this.show());
  }
}
