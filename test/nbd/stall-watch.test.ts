import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import { Command } from '../../src/nbd/constants.js';
import type { CommandType } from '../../src/nbd/constants.js';
import { InFlight } from '../../src/nbd/in-flight.js';
import type { PendingCommand } from '../../src/nbd/in-flight.js';
import { StallWatch } from '../../src/nbd/stall-watch.js';

const GIB = 1024 * 1024 * 1024;
/** Milliseconds. */
const DEADLINE = 8_000;

class Watched {
  readonly inFlight = new InFlight();
  moved = 0;
  stalls = 0;
  readonly watch = new StallWatch(
    this.inFlight,
    DEADLINE,
    () => this.moved,
    () => this.stalls++,
  );

  /** @param due bytes that are to move before its turn */
  start(type: CommandType, length = 512, due = 0): PendingCommand {
    const command = this.inFlight.add(type, 0, 0n, length);
    this.watch.started(command, this.moved + due);
    return command;
  }

  /** Lets seconds pass, in each of which so many bytes move. */
  pass(seconds: number, bytes = 0): void {
    for (let i = 0; i < seconds; i++) {
      this.moved += bytes;
      mock.timers.tick(1_000);
    }
  }
}

describe('a command that is not answered', () => {
  /** With a clock that the test moves. */
  function timed(name: string, run: (watched: Watched) => void): void {
    it(name, () => {
      mock.timers.enable({ apis: ['setTimeout'] });
      const watched = new Watched();
      try {
        run(watched);
      } finally {
        watched.watch.stop();
        mock.timers.reset();
      }
    });
  }

  timed('is found after its time, and not before', (watched) => {
    watched.start(Command.READ);
    watched.pass(8);
    assert.equal(watched.stalls, 0);
    watched.pass(1);
    assert.equal(watched.stalls, 1);
    watched.pass(20);
    assert.equal(watched.stalls, 1, 'once');
  });

  timed('is found among others that are answered', (watched) => {
    watched.start(Command.READ);
    for (let i = 0; i < 9; i++) {
      const other = watched.start(Command.READ);
      watched.pass(1, 1000);
      watched.inFlight.remove(other);
    }
    assert.equal(watched.stalls, 1);
  });

  timed('waits for its turn on a slow line, and for its own data', (watched) => {
    watched.start(Command.READ, 1_000_000, 1_000_000);
    watched.pass(30, 30_000);
    assert.equal(watched.stalls, 0);
    watched.pass(9);
    assert.equal(watched.stalls, 1, 'the line does not move any more');
  });

  timed('is not held up for ever by those that came later', (watched) => {
    watched.start(Command.READ, 512, 1_000_000);
    watched.pass(2, 500_000);
    watched.pass(9, 500_000);
    assert.equal(watched.stalls, 1);
  });

  timed('may take longer where it is much work', (watched) => {
    watched.start(Command.WRITE_ZEROES, 2 * GIB);
    watched.pass(24);
    assert.equal(watched.stalls, 0);
    watched.pass(1);
    assert.equal(watched.stalls, 1);
  });

  timed('may take longer where it flushes much', (watched) => {
    for (let i = 0; i < 64; i++) {
      watched.inFlight.remove(watched.start(Command.WRITE, GIB / 32));
    }
    const flush = watched.start(Command.FLUSH);
    watched.pass(24);
    assert.equal(watched.stalls, 0);
    watched.inFlight.remove(flush);
    watched.start(Command.READ);
    watched.pass(1);
    watched.start(Command.FLUSH);
    watched.pass(8);
    assert.equal(watched.stalls, 1, 'and no longer than others when little is to be flushed');
  });

  timed('is looked for only while there is one', (watched) => {
    watched.inFlight.remove(watched.start(Command.READ));
    watched.pass(100);
    watched.start(Command.READ);
    watched.pass(8);
    assert.equal(watched.stalls, 0);
    watched.pass(1);
    assert.equal(watched.stalls, 1);
  });
});
