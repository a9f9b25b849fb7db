/** A short run of all the fuzzing, what it has found before, and what was recorded for it. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { clientSessions, serverSessions } from './corpus.js';
import { findings, pack, unpack } from './findings.js';
import { fuzz } from './runner.js';
import { targets } from './targets.js';
import { replay as replayServer } from './targets/client-sessions.js';
import { replay as replayClient } from './targets/server-sessions.js';

/** The same inputs each time, and some that nobody has seen. */
const SEEDS = [1, Math.floor(Math.random() * 2 ** 31)];
/** Of each seed. */
const CASES = 250;
const IN_ONE_PIECE = [0];

for (const target of targets) {
  describe(`fuzzing: ${target.name}`, () => {
    for (const seed of SEEDS) {
      it(`seed ${seed} (npm run fuzz -- --target ${target.name} --seed ${seed})`, async () => {
        const tally = { cases: 0, frames: 0 };
        const finding = await fuzz(target, { seed, cases: CASES, tally });
        assert.equal(finding, undefined, finding && `${finding.why}\n${pack(finding.input)}`);
        assert.ok(tally.frames >= CASES / 2, `${tally.frames} frames`);
      });
    }
  });
}

describe('what fuzzing has found', () => {
  for (const [name, { target, input }] of findings()) {
    it(name, async () => {
      const one = targets.find((each) => each.name === target);
      assert.ok(one, `a target ${target}`);
      await one.run(input);
    });
  }
});

describe('what was recorded', () => {
  for (const session of serverSessions()) {
    it(`is understood: ${session.of}`, async () => {
      const answers = await replayServer({ ...session, pieces: IN_ONE_PIECE });
      assert.deepEqual(answers, session.answers);
      assert.ok(session.answers.includes('data'));
    });
  }
  for (const session of clientSessions()) {
    it(`is served: ${session.of}`, async () => {
      const { frames } = session;
      const sent = await replayClient({ frames, pieces: IN_ONE_PIECE, shuffle: 0 });
      assert.ok(sent !== undefined && sent.length > 0);
    });
  }
});

describe('a finding', () => {
  it('is kept as it is', () => {
    const input = { bytes: Buffer.of(0, 255), number: 2n ** 63n, list: [1, 'x', null, true, {}] };
    assert.deepEqual(unpack(pack(input)), input);
  });
});
