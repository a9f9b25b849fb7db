/** A socket that takes the datagrams of sd_notify(3) and of syslog(3): Node has none of that kind. */

import { until } from './mounts.js';
import type { Running, Workplace } from './mounts.js';

const RECEIVE = `
import json, socket, sys
place = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
place.bind('\\0' + name[1:] if name[0] == '@' else name)
print('bound', flush=True)
while True:
    print(json.dumps(place.recv(65536).decode()), flush=True)
`;

export class Datagrams {
  readonly #receiver: Running;

  private constructor(receiver: Running) {
    this.#receiver = receiver;
  }

  /** @param name a path, or an abstract name that starts with @ */
  static async receive(place: Workplace, name: string): Promise<Datagrams> {
    const receiver = place.start('python3', ['-u', '-c', RECEIVE, name]);
    await until('it is bound', () => receiver.hasEnded || receiver.stdout.includes('bound'));
    if (receiver.hasEnded) throw new Error((await receiver.ended).stderr);
    return new Datagrams(receiver);
  }

  /** What has come so far. */
  get all(): string[] {
    const [, ...lines] = this.#receiver.stdout.trimEnd().split('\n');
    return lines.map((line) => JSON.parse(line) as string);
  }

  async until(what: string, isIt: (message: string) => boolean): Promise<void> {
    await until(what, () => this.all.some(isIt));
  }

  async close(): Promise<void> {
    process.kill(this.#receiver.pid, 'SIGTERM');
    await this.#receiver.ended;
  }
}
