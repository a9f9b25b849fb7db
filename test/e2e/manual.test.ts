/** Every command that the manual shows is run as it stands there, and says what the page has it say. */

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { PAGES, sourceOf } from '../../scripts/manual/pages.js';
import { play } from '../support/manual-runner.js';
import type { Surroundings } from '../support/manual-runner.js';
import type { Session } from '../support/manual-sessions.js';
import { sessionsOf } from '../support/manual-sessions.js';
import { Workplace } from '../support/mounts.js';
import { requires } from '../support/requires.js';
import type { Needs } from '../support/requires.js';
import { serveFiles } from '../support/web-server.js';

/** The recipes tell it, and are taken at their word. */
function untilMounted(): string {
  const [loop] = sessionsOf(sourceOf('tsnbdfuse-recipes.7'))
    .flatMap(({ commands }) => commands.map(({ text }) => text))
    .filter((text) => text.startsWith('until tsnbdfuse --status '));
  assert.ok(loop !== undefined, 'the recipes tell how to wait for a mount');
  return loop.replace(/(?<=^until tsnbdfuse --status )\S+/, 'MOUNTPOINT');
}

/** What is called otherwise on this machine. */
const substitutions = (
  place: Workplace,
  port: number,
  webPort: number,
): Surroundings['substitutions'] => [
  ['nbd://server.example/', `nbd://127.0.0.1:${port}/`],
  ['nbds://server.example/', `nbds://127.0.0.1:${port}/`],
  ['nbds://alice@server.example/', `nbds://alice@127.0.0.1:${port}/`],
  ['-p 10809 ', `-p ${port} `],
  ['--metrics 9177 ', `--metrics ${port} `],
  ['http://127.0.0.1:9177/', `http://127.0.0.1:${port}/`],
  ['https://images.example/', `http://127.0.0.1:${webPort}/`],
  ['/run/export.sock', place.join('export.sock')],
];

function needsOf({ needs, as }: Session): Needs {
  return {
    fuse: true,
    programs: ['bash', 'fusermount3', 'mountpoint', ...needs],
    root: as?.startsWith('root') === true,
    loop: as === 'root, with loop devices',
  };
}

/** One that nobody listens on. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

for (const page of PAGES) {
  describe(`the commands in ${page}`, () => {
    let place: Workplace;

    beforeEach(async () => {
      place = await Workplace.create();
    });
    afterEach(() => place.finish());

    for (const session of sessionsOf(sourceOf(page))) {
      const { name, notRun } = session;
      const options = notRun === undefined ? requires(needsOf(session)) : { skip: notRun };
      it(name, options, async () => {
        const [port, server] = await Promise.all([freePort(), serveFiles(place.join('www'))]);
        try {
          const surroundings: Surroundings = {
            substitutions: substitutions(place, port, server.port),
            untilMounted: untilMounted(),
            env: { PORT: String(port) },
          };
          assert.deepEqual(await play(session, place, surroundings), []);
        } finally {
          await server.close();
        }
      });
    }
  });
}
