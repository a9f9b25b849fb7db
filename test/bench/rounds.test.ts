import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chooseJobs, JOBS, title } from '../../bench/jobs.js';
import { parseOptions } from '../../bench/options.js';
import { orderOf, patienceWith } from '../../bench/rounds.js';

describe('the rounds of the bench', () => {
  it('let each go first in turn', () => {
    const contenders = ['tsnbdfuse', 'nbdfuse', 'nbd engine'] as const;
    const orders = [0, 1, 2, 3, 4, 5].map((round) => orderOf(contenders, round));
    for (const order of orders) assert.deepEqual(order.toSorted(), contenders.toSorted());
    assert.deepEqual(new Set(orders.map(([first]) => first)), new Set(contenders));
    assert.notDeepEqual(orders[0], orders[1]);
  });

  it('alternate two', () => {
    const first = [0, 1, 2, 3].map((round) => orderOf(['tsnbdkit', 'nbdkit'], round)[0]);
    assert.equal(first.filter((name) => name === 'tsnbdkit').length, 2);
  });

  it('wait for the others a multiple of what ours took at most', () => {
    const job = JOBS.find(({ patience }) => patience !== undefined);
    assert.ok(job?.patience !== undefined);
    const runs = [{ value: 2 }, { failed: 'x' }, { value: 3 }];
    assert.equal(patienceWith(job, runs), 3 * job.patience);
    assert.equal(patienceWith(job, []), undefined);
  });
});

describe('the jobs of the bench', () => {
  it('have names of their own', () => {
    assert.equal(new Set(JOBS.map(title)).size, JOBS.length);
  });

  it('have two contenders at least, the product first', () => {
    for (const { contenders } of JOBS) {
      assert.match(contenders[0] ?? '', /^tsnbd/);
      assert.match(contenders[1] ?? '', /^nbd(fuse|kit)$/);
    }
  });

  it('are chosen by name, in any case; and fewer with --quick', () => {
    assert.deepEqual(chooseJobs(JOBS, false), JOBS);
    assert.ok(chooseJobs(JOBS, true).length < JOBS.length);
    assert.ok(chooseJobs(JOBS, true, 'QCOW2').every((job) => title(job).includes('qcow2')));
    assert.ok(chooseJobs(JOBS, true, 'qcow2').length > 0);
  });
});

describe('the command line of the bench', () => {
  it('has defaults', () => {
    const options = parseOptions([], '/out');
    assert.equal(options.quick, false);
    assert.equal(options.growth, false);
    assert.equal(options.output, '/out');
  });

  it('is checked', () => {
    assert.equal(parseOptions(['--rounds', '2'], '/out').rounds, 2);
    for (const wrong of [['--rounds', '0'], ['--only', '('], ['--fast']]) {
      assert.throws(() => quietly(() => parseOptions(wrong, '/out')));
    }
  });
});

/** commander tells what is wrong on standard error. */
function quietly(action: () => void): void {
  const write = process.stderr.write.bind(process.stderr);
  process.stderr.write = () => true;
  try {
    action();
  } finally {
    process.stderr.write = write;
  }
}
