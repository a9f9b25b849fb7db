/** Completion for fish; the words of a captive server are completed as that program's. */

import {
  SCHEMES,
  modes,
  pluginArguments,
  tsnbdfuseOptions,
  tsnbdkitOptions,
} from './completable.js';
import type { CompletedOption, Value } from './completable.js';

const quoted = (text: string): string => `'${text.replace(/[\\']/g, '\\$&')}'`;

function valueFlags(value: Value | undefined): string {
  switch (value?.kind) {
    case undefined:
      return '';
    case 'files':
      return ' -r -F';
    case 'hosts':
      return " -x -a '(__fish_print_hostnames)'";
    case 'words':
      return ` -x -a ${quoted(value.words.join(' '))}`;
    case 'list':
      return ` -x -a ${quoted(`(__fish_complete_list , "string split ' ' '${value.words.join(' ')}'")`)}`;
    case 'command':
    case 'text':
      return ' -x';
  }
}

function optionLine(
  command: string,
  when: string,
  { names, help, value }: CompletedOption,
): string {
  const flags = names.map((name) =>
    name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`,
  );
  return `complete -c ${command}${when} ${flags.join(' ')} -d ${quoted(help)}${valueFlags(value)}`;
}

const takingValues = (options: readonly CompletedOption[]): string =>
  options.flatMap(({ names, value }) => (value === undefined ? [] : names)).join(' ');

/** Only the kinds that can be completed; the first word behind each mode. */
const modeLines = (): string =>
  modes()
    .map(
      ({ word, values: [first] }) =>
        `complete -c tsnbdfuse -n '__tsnbdfuse_is source' -l ${word.slice(2)}${
          first?.kind === 'command' ? '' : valueFlags(first)
        }`,
    )
    .join('\n');

export function fishScript(): string {
  const ours = tsnbdfuseOptions();
  const kits = tsnbdkitOptions();
  const commands = modes().flatMap(({ word, values }) =>
    values[0]?.kind === 'command' ? [word] : [],
  );
  const plugins = pluginArguments();
  return `# Completes tsnbdfuse and tsnbdkit in fish: tsnbdfuse --completion fish | source

# What is to be typed: mountpoint, source, server, or nothing any more.
function __tsnbdfuse_place
    set -l words (commandline -opc)
    set -l place mountpoint
    set -l skip 1
    for word in $words
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case '[' ${commands.join(' ')}
                echo server
                return
            case ${takingValues(ours)}
                set skip 1
            case '-*'
            case '*'
                test $place = mountpoint; and set place source; or set place nothing
        end
    end
    echo $place
end

function __tsnbdfuse_is
    test (__tsnbdfuse_place) = $argv[1]
end

# The command of a captive server, completed as if it stood alone.
function __tsnbdfuse_server
    set -l words (commandline -opc)
    while set -q words[1]; and not contains -- $words[1] '[' ${commands.join(' ')}
        set -e words[1]
    end
    set -l opening $words[1]
    set -e words[1]
    set -l current (commandline -ct)
    complete -C (string join ' ' -- (string escape -- $words) $current)
    test $opening = '['; and set -q words[1]; and echo ]
end

# The first word that is none of an option.
function __tsnbdkit_plugin
    set -l skip 1
    for word in (commandline -opc)
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case ${takingValues(kits)}
                set skip 1
            case '-*'
            case '*'
                echo $word
                return
        end
    end
end

complete -c tsnbdfuse -n '__tsnbdfuse_is mountpoint' -F
complete -c tsnbdfuse -n '__tsnbdfuse_is source' -F -a '[ ${SCHEMES.join(' ')}'
complete -c tsnbdfuse -n '__tsnbdfuse_is server' -x -a '(__tsnbdfuse_server)'
${ours.map((option) => optionLine('tsnbdfuse', " -n 'not __tsnbdfuse_is server'", option)).join('\n')}
${modeLines()}

complete -c tsnbdkit -n 'test -z (__tsnbdkit_plugin)' -x -a '${plugins.map(({ name }) => name).join(' ')}'
complete -c tsnbdkit -n 'contains -- (__tsnbdkit_plugin) ${plugins.flatMap(({ name, file }) => (file ? [name] : [])).join(' ')}' -F
${kits.map((option) => optionLine('tsnbdkit', '', option)).join('\n')}
`;
}
