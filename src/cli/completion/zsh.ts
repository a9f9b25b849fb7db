/** Completion for zsh, by its own `_arguments`; the words of a captive server are completed as that program's. */

import {
  SCHEMES,
  modes,
  pluginArguments,
  tsnbdfuseOptions,
  tsnbdkitOptions,
} from './completable.js';
import type { CompletedOption, Value } from './completable.js';

/** In single quotes, where brackets and colons would end a part of a specification. */
const escaped = (text: string): string =>
  text.replace(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''");

function action(value: Value): string {
  switch (value.kind) {
    case 'files':
      return ':file:_files';
    case 'hosts':
      return ':host:_hosts';
    case 'words':
      return `:value:(${value.words.join(' ')})`;
    case 'list':
      // What stands behind a = is not known here.
      return `:value: _values -s , value ${value.words.map((word) => word.replace(/=$/, '\\:value\\: ')).join(' ')}`;
    case 'command':
      return ':*::server: _normal';
    case 'text':
      return `:${escaped(value.name)}: `;
  }
}

/** Once only, but for those that say more each time. */
function optionLine({ names, help, value }: CompletedOption): string {
  const others = names.includes('-o') ? '*' : `(${names.join(' ')})`;
  return names
    .map((name) => {
      // A long one takes its value behind a blank or a =, a short one in the same word as well.
      const joint = value === undefined ? '' : name.startsWith('--') ? '=' : '+';
      const what = value === undefined ? '' : action(value);
      return `    '${others}${name}${joint}[${escaped(help)}]${what}' \\`;
    })
    .join('\n');
}

const modeLines = (): string =>
  modes()
    .map(({ word, values }) => `    '${word}[a way to the disk]${values.map(action).join('')}' \\`)
    .join('\n');

/** Behind `*::` an action has all words that are no options, behind `*:::` those that are left for it. */
export function zshScript(): string {
  const plugins = pluginArguments();
  const files = plugins.flatMap(({ name, file }) => (file ? [name] : []));
  return `#compdef tsnbdfuse tsnbdkit
# Completes tsnbdfuse and tsnbdkit in zsh: source <(tsnbdfuse --completion zsh), after compinit.

_tsnbdfuse_source() {
  if ((CURRENT == 1)); then
    compadd -X 'a captive server' -- '['
    compadd -S '' -X 'a URI' -- ${SCHEMES.join(' ')}
    _files -X 'an image'
  elif [[ $words[1] == '[' ]]; then
    shift words
    ((CURRENT--))
    ((CURRENT == 1)) || compadd -- ']'
    _normal
  fi
}

_tsnbdfuse() {
  _arguments -s -S : \\
${tsnbdfuseOptions().map(optionLine).join('\n')}
${modeLines()}
    '1:mountpoint:_files' \\
    '*:::disk:_tsnbdfuse_source'
}

_tsnbdkit_argument() {
  [[ $words[1] != (${files.join('|')}) ]] || _files
}

_tsnbdkit() {
  _arguments -s -S : \\
${tsnbdkitOptions().map(optionLine).join('\n')}
    '1:plugin:(${plugins.map(({ name }) => name).join(' ')})' \\
    '*::argument:_tsnbdkit_argument'
}

# In a folder of fpath this file is the function itself, otherwise it is read once.
case $funcstack[1] in
_tsnbdfuse) _tsnbdfuse "$@" ;;
*) compdef _tsnbdfuse tsnbdfuse && compdef _tsnbdkit tsnbdkit ;;
esac
`;
}
