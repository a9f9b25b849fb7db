import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Syslog } from '../../src/cli/syslog.js';
import { Datagrams } from '../support/datagrams.js';
import { DEADLINE, Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';

describe(
  'the log of the system',
  { timeout: DEADLINE, ...requires({ programs: ['python3'] }) },
  () => {
    let place: Workplace;
    beforeEach(async () => {
      place = await Workplace.create();
    });
    afterEach(() => place.remove());

    it('gets a message for each line, however it was cut', async () => {
      const log = await Datagrams.receive(place, place.join('log'));
      const syslog = new Syslog('tsnbdfuse', place.join('log'));
      try {
        for (const text of [
          'tsnbdfuse: first\nqemu-nbd: sec',
          'ond\n\n',
          `${'x'.repeat(5000)}\n`,
        ]) {
          syslog.write(Buffer.from(text));
        }
        await log.until('the last one is there', (message) => message.endsWith('xxx'));
        const head = /^<29>[A-Z][a-z]{2} [ 123]\d \d\d:\d\d:\d\d tsnbdfuse\[(\d+)\]: (.*)$/;
        const messages = log.all.map((message) => head.exec(message) ?? []);
        assert.deepEqual(
          messages.map(([, pid]) => Number(pid)),
          [process.pid, process.pid, process.pid],
        );
        assert.deepEqual(
          messages.slice(0, 2).map(([, , text]) => text),
          ['first', 'qemu-nbd: second'],
        );
        assert.equal(log.all[2]?.length, 2048);
      } finally {
        syslog.close();
        await log.close();
      }
    });

    it('is not missed where there is none', () => {
      const syslog = new Syslog('tsnbdfuse', place.join('nobody'));
      syslog.write(Buffer.from('nobody hears that\n'));
      syslog.close();
    });
  },
);
