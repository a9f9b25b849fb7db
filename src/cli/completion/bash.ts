/**
 * Completion for bash, which needs nothing else: with the package bash-completion, the words of a captive
 * server are completed as that program's own.
 */

import {
  SCHEMES,
  modes,
  pluginArguments,
  tsnbdfuseOptions,
  tsnbdkitOptions,
} from './completable.js';
import type { CompletedOption, Value } from './completable.js';

function reply(value: Value): string {
  switch (value.kind) {
    case 'files':
      return '_tsnbd_files "$cur"';
    case 'hosts':
      return '_tsnbd_reply "$cur" -A hostname';
    case 'words':
      return `_tsnbd_reply "$cur" -W '${value.words.join(' ')}'`;
    case 'list':
      return `_tsnbd_list "$cur" '${value.words.join(' ')}'`;
    case 'command':
      return '_tsnbd_command $((i + 1))';
    case 'text':
      return ':';
  }
}

/** A case for each option that takes a value. */
const valueCases = (options: readonly CompletedOption[]): string =>
  options
    .flatMap(({ names, value }) =>
      value === undefined ? [] : [`    ${names.join('|')}) ${reply(value)}; return ;;`],
    )
    .join('\n');

const names = (options: readonly CompletedOption[]): string =>
  options.flatMap((option) => option.names).join(' ');

const takingValues = (options: readonly CompletedOption[]): string =>
  options.flatMap((option) => (option.value === undefined ? [] : option.names)).join('|');

/** Modes whose words are a command. */
const commandModes = (): string[] =>
  modes().flatMap(({ word, values }) => (values[0]?.kind === 'command' ? [word] : []));

/** A case for each word of the other modes, by its place behind the word of the mode. */
const modeCases = (): string =>
  modes()
    .flatMap(({ word, values }) =>
      values.flatMap((value, index) =>
        value.kind === 'files' || value.kind === 'hosts'
          ? [`    ${word}/${index + 1}) ${reply(value)} ;;`]
          : [],
      ),
    )
    .join('\n');

export function bashScript(): string {
  const ours = tsnbdfuseOptions();
  const kits = tsnbdkitOptions();
  const words = modes().map(({ word }) => word);
  const plugins = pluginArguments();
  return `# Completes tsnbdfuse and tsnbdkit in bash: source <(tsnbdfuse --completion bash)

# The words that compgen finds; it takes them with their blanks.
_tsnbd_reply() {
  local cur=$1
  shift
  mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}

_tsnbd_files() {
  # Outside of a completion there is nothing to set.
  compopt -o filenames 2>/dev/null
  _tsnbd_reply "$1" -f
}

# One more of several words with commas between. What follows it, = or a comma, is for the user to type.
_tsnbd_list() {
  local before=
  [[ $1 != *,* ]] || before=\${1%,*},
  compopt -o nospace 2>/dev/null
  _tsnbd_reply "\${1##*,}" -P "$before" -W "$2"
}

# An image, or what other sources begin with. Where both are offered, they are not told to be names of
# files: of a URI nothing but its last / would be shown.
_tsnbd_source() {
  local other
  _tsnbd_reply "$1" -W '[ ${SCHEMES.join(' ')}'
  other=("\${COMPREPLY[@]}")
  _tsnbd_reply "$1" -f
  if ((\${#other[@]} == 0)); then
    compopt -o filenames 2>/dev/null
  elif ((\${#COMPREPLY[@]} == 0)) && [[ $1 != '[' ]]; then
    compopt -o nospace 2>/dev/null
  fi
  COMPREPLY+=("\${other[@]}")
}

# A command and its words, which begin at a place in the line.
_tsnbd_command() {
  if ((COMP_CWORD == $1)); then
    _tsnbd_reply "\${COMP_WORDS[COMP_CWORD]}" -c
  elif declare -F _command_offset >/dev/null; then
    _command_offset "$1"
  else
    _tsnbd_files "\${COMP_WORDS[COMP_CWORD]}"
  fi
}

# Bash makes words of their own of the = in --option=value or -o name=value, and of the value.
_tsnbd_word() {
  local at=$COMP_CWORD
  cur=\${COMP_WORDS[at]}
  if [[ $cur == '=' ]]; then
    cur=
    ((at++))
  fi
  prev=\${COMP_WORDS[at - 1]}
  while ((at > 1)) && [[ $prev == '=' ]]; do
    prev=\${COMP_WORDS[at - 2]}
    [[ $prev != -* ]] || return
    ((at -= 2))
    prev=\${COMP_WORDS[at - 1]}
  done
}

# From an option, whose place is in i, to the last word of its value.
_tsnbd_skip_value() {
  [[ \${COMP_WORDS[i + 1]} != '=' ]] || ((i++))
  ((i++))
  while [[ \${COMP_WORDS[i + 1]} == '=' ]]; do ((i += 2)); done
}

_tsnbdfuse() {
  local cur prev i word mode= mountpoint=
  _tsnbd_word
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=\${COMP_WORDS[i]}
    case $word in
    '['|${words.join('|')})
      mode=$word
      break
      ;;
    ${takingValues(ours)}) _tsnbd_skip_value ;;
    -*) ;;
    *) mountpoint=$word ;;
    esac
  done

  case $mode in
  '')
    case $prev in
${valueCases(ours)}
    esac
    if [[ $cur == -* ]]; then
      _tsnbd_reply "$cur" -W "${names(ours)}\${mountpoint:+ ${words.join(' ')}}"
    elif [[ -z $mountpoint ]]; then
      _tsnbd_files "$cur"
    else
      _tsnbd_source "$cur"
    fi
    ;;
  '[')
    _tsnbd_command $((i + 1))
    [[ -n $cur && $cur != ']' ]] || ((COMP_CWORD == i + 1)) || COMPREPLY+=(']')
    ;;
  ${commandModes().join('|')}) _tsnbd_command $((i + 1)) ;;
  *)
    case $mode/$((COMP_CWORD - i)) in
${modeCases()}
    esac
    ;;
  esac
}

_tsnbdkit() {
  local cur prev i plugin=
  _tsnbd_word
  COMPREPLY=()
  case $prev in
${valueCases(kits)}
  esac
  for ((i = 1; i < COMP_CWORD; i++)); do
    case \${COMP_WORDS[i]} in
    ${takingValues(kits)}) _tsnbd_skip_value ;;
    -*) ;;
    *) plugin=\${COMP_WORDS[i]} ;;
    esac
  done
  if [[ $cur == -* ]]; then
    _tsnbd_reply "$cur" -W '${names(kits)}'
  elif [[ -z $plugin ]]; then
    _tsnbd_reply "$cur" -W '${plugins.map(({ name }) => name).join(' ')}'
  elif [[ $plugin == @(${plugins.flatMap(({ name, file }) => (file ? [name] : [])).join('|')}) ]]; then
    _tsnbd_files "$cur"
  fi
}

complete -F _tsnbdfuse tsnbdfuse
complete -F _tsnbdkit tsnbdkit
`;
}
