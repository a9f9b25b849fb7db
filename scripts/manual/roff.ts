/** Text as roff(7) has it: escapes, fonts, and lines that are neither too long nor taken for requests. */

/** What a terminal shows otherwise than it is typed, where the characters have to be exact. */
const TYPED: ReadonlyMap<string, string> = new Map([
  ['\\', '\\e'],
  ['-', '\\-'],
  ["'", '\\(aq'],
  ['"', '\\(dq'],
  ['`', '\\(ga'],
  ['^', '\\(ha'],
  ['~', '\\(ti'],
]);

/** In prose a hyphen may be one. The others are what an author writes for good looks. */
const PROSE: ReadonlyMap<string, string> = new Map([
  ['\\', '\\e'],
  ['`', '\\(ga'],
  ['^', '\\(ha'],
  ['~', '\\(ti'],
  ['–', '\\(en'],
  ['“', '\\(lq'],
  ['”', '\\(rq'],
  ['’', '\\(cq'],
  // Where the source goes on in another line, as the page may as well.
  ['\n', ' '],
]);

function escaped(text: string, table: ReadonlyMap<string, string>): string {
  return Array.from(text)
    .map((character) => {
      const replacement = table.get(character);
      if (replacement !== undefined) return replacement;
      if (character < ' ' || character > '~') {
        throw new Error(`a character that no table has: ${JSON.stringify(character)} in ${text}`);
      }
      return character;
    })
    .join('');
}

/** Text to be typed or compared, character by character. */
export const typed = (text: string): string => escaped(text, TYPED);

export const prose = (text: string): string => escaped(text, PROSE);

/** Names of commands and the like, which nobody would find again when they are torn apart. */
export const bold = (text: string): string => `\\fB${text.replace(/(^| )(?=[a-z])/g, '$1\\%')}\\fR`;
export const italic = (text: string): string => `\\fI${text}\\fR`;

/** As an argument of a macro, also with blanks in it. */
export const quoted = (text: string): string => `"${text.replaceAll('"', '\\(dq')}"`;

/** A line that begins as a request does is none behind this. */
export const guarded = (line: string): string => (/^[.']/.test(line) ? `\\&${line}` : line);

/** Longer ones are bad style to mandoc(1). */
const LINE = 78;

/** The end of a sentence, also behind what closes it, but no dots that leave something out. */
const SENTENCE_END = /(?<!\.\.)[.!?:](\)|\\\(rq|\\fR)*$/;

/** Words as lines: a new one for each sentence, and where one gets too long. */
export function filled(text: string): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/).filter((one) => one !== '')) {
    const joined = line === '' ? word : `${line} ${word}`;
    if (line !== '' && joined.length > LINE) {
      lines.push(line);
      line = word;
    } else {
      line = joined;
    }
    if (SENTENCE_END.test(line)) {
      lines.push(line);
      line = '';
    }
  }
  if (line !== '') lines.push(line);
  return lines.map(guarded);
}
