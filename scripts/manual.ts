/**
 * `npm run manual`: makes the pages of the manual out of man/*.md. They are kept with the sources, so that a
 * clone has them at once; `test/manual/pages.test.ts` holds them together.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { PAGES, dateOf, pageOf, pageFile } from './manual/pages.js';

const today = new Date().toISOString().slice(0, 10);
for (const name of PAGES) {
  const file = pageFile(name);
  const old = existsSync(file) ? readFileSync(file, 'utf8') : '';
  // A page bears the day of its last change.
  if (old === pageOf(name, dateOf(old) ?? today)) continue;
  writeFileSync(file, pageOf(name, today));
  console.log(`made man/${name}`);
}
