/**
 * Types a session of the manual into a shell, with the commands of this package in its PATH, and finds what
 * came otherwise than the page has it.
 */

import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir } from 'node:fs/promises';
import { isSaid } from './manual-sessions.js';
import type { Command, Session } from './manual-sessions.js';
import type { Workplace } from './mounts.js';

export interface Surroundings {
  /** What is called otherwise on the machine of the test, as the names of hosts. */
  readonly substitutions: readonly (readonly [string, string])[];
  /** How the manual waits for a mount. MOUNTPOINT stands for it. */
  readonly untilMounted: string;
  /** For the shell. */
  readonly env: NodeJS.ProcessEnv;
}

/** Nobody's. */
const ORDINARY_USER = 65534;
/** Milliseconds. */
const DEADLINE = 120_000;

/** Where what came of each command is kept, out of sight of `ls`. */
const NOTES = '.session';

const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** A command that is left running: what follows it can count on the mount. */
const BACKGROUND_MOUNT = /^tsnbdfuse .* &$/s;

/** What the command mounts on, for a test of whether it is mounted. */
function mountpointOf(command: string): string {
  const [, word] =
    /\s(\S+) (?:\\\n *)?'?(?:\[ |--(?:command|tcp|unix|fd) |nbds?[+:]|[^\s[]+ &$)/.exec(command) ??
    [];
  if (word === undefined) throw new Error(`no mountpoint in ${command}`);
  return word;
}

function scriptLines({ text }: Command, index: number, untilMounted: string): string[] {
  const lines = [
    `{ eval ${quote(text)}; } >"$notes"/${index}.said 2>&1`,
    `echo $? >"$notes"/${index}.status`,
  ];
  if (!BACKGROUND_MOUNT.test(text)) return lines;
  const word = mountpointOf(text);
  return [
    ...lines,
    `echo $! >>"$notes"/mounts`,
    // A free name is mounted on its directory.
    `at=${word}; [ -e "$at" ] || at=\${at%/*}`,
    untilMounted.replaceAll('MOUNTPOINT', '"$at"'),
  ];
}

/** What pages have at hand to prepare a session. */
const HELPERS = `
wait_for_port() { until (: </dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do sleep 0.1; done; }

# What root changes outside of its folder is seen by its own mounts alone.
own_mounts() {
  cp -a "$(realpath /sbin)" sbin
  rm -f sbin/{mount,umount}.fuse.tsnbdfuse
  mkdir utab
  touch fstab
  mount --bind sbin "$(realpath /sbin)"
  mount --bind fstab /etc/fstab
  mount --bind utab /run/mount
  mount -t tmpfs tmpfs /mnt
}

# For a program that imports this package.
install_library() {
  mkdir node_modules
  ln -s "$(dirname "$(command -v tsnbdfuse)")/.." node_modules/tsnbdfuse
}

# The real ssh, to a server of its own for server.example, which lets in whoever runs the test.
start_sshd() {
  mkdir bin
  [ "$(id -u)" != 0 ] || mkdir -p /run/sshd
  for name in host user; do ssh-keygen -q -t ed25519 -N '' -f "$PWD/key-$name"; done
  printf '%s\\n' "HostKey $PWD/key-host" "AuthorizedKeysFile $PWD/key-user.pub" 'StrictModes no' \\
    'ListenAddress 127.0.0.1' "Port $PORT" 'PidFile none' 'UsePAM no' >sshd_config
  printf '%s\\n' 'Host server.example' 'HostName 127.0.0.1' "Port $PORT" "IdentityFile $PWD/key-user" \\
    'UserKnownHostsFile /dev/null' 'StrictHostKeyChecking no' 'LogLevel ERROR' >ssh_config
  printf '#!/bin/sh\\nexec %s -F %s "$@"\\n' "$(command -v ssh)" "$PWD/ssh_config" >bin/ssh
  chmod +x bin/ssh
  "$(command -v sshd)" -D -e -f "$PWD/sshd_config" 2>sshd.log &
  PATH=$PWD/bin:$PATH
  wait_for_port
}
`;

/** Ends what the page leaves to the reader to end. */
const ENDING = `
cd /
while read -r _ _ _ _ at _; do
  case $at in "$place"/*) fusermount3 -u "$at" || umount "$at" ;; esac
done </proc/self/mountinfo
touch "$notes"/mounts
while read -r pid; do
  wait "$pid"
  echo "$?" >>"$notes"/ends
done <"$notes"/mounts
for pid in $(jobs -p); do kill "$pid" 2>/dev/null; wait "$pid"; done
true
`;

/**
 * @returns what is not as the page has it; empty when all is
 * @throws Error when it does not end
 */
export async function play(
  session: Session,
  place: Workplace,
  surroundings: Surroundings,
): Promise<string[]> {
  const here = (text: string): string =>
    surroundings.substitutions.reduce((words, [name, one]) => words.replaceAll(name, one), text);
  const { before } = session;
  const commands = session.commands.map(({ text, output, status }) => ({
    text: here(text),
    output: output === undefined ? undefined : here(output),
    status,
  }));
  const asUser = session.as === 'an ordinary user' && process.getuid?.() === 0;
  const notes = place.join(NOTES);
  await mkdir(notes);
  await chmod(notes, 0o777);
  const script = [
    HELPERS,
    `place=$PWD notes=$PWD/${NOTES}`,
    'set -e',
    ...before,
    'set +e',
    ...commands.flatMap((command, index) => scriptLines(command, index, surroundings.untilMounted)),
    ENDING,
  ].join('\n');
  const file = await place.file(`${NOTES}/script`, script);
  if (asUser) await place.give(ORDINARY_USER);
  const [program = '', ...words] =
    session.as === 'root, with mounts of its own' ? ['unshare', '--mount', 'bash'] : ['bash'];
  const result = await place.run(program, [...words, file], {
    env: surroundings.env,
    deadline: DEADLINE,
    ...(asUser ? { user: ORDINARY_USER } : {}),
  });

  const read = (name: string): string | undefined =>
    existsSync(`${notes}/${name}`) ? readFileSync(`${notes}/${name}`, 'utf8') : undefined;
  const problems = commands.flatMap((command, index) => {
    const said = read(`${index}.said`) ?? '';
    const status = read(`${index}.status`)?.trim() ?? 'nothing';
    const how = `$ ${command.text}\n${said}`;
    if (status !== String(command.status)) return [`ended with ${status}: ${how}`];
    // What we have to tell is for the reader to know.
    const output = command.output ?? (/^tsnbd(fuse|kit): /m.test(said) ? '' : undefined);
    return output === undefined || isSaid(output, said)
      ? []
      : [`said otherwise: ${how}and not\n${output}`];
  });
  const ends = (read('ends') ?? '').trim().split('\n');
  ends.forEach((end, index) => {
    // 127: the page itself has waited for it.
    const expected = ['', '127', String(session.ends[index] ?? 0)];
    if (!expected.includes(end)) problems.push(`mount ${index + 1} ended with ${end}`);
  });
  if (result.status !== 0 || problems.length > 0)
    problems.push(`the shell: ${result.status} ${result.stderr}`);
  return problems;
}
