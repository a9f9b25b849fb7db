/** The pages that there are, and their files. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.js';
import { manualPage } from './page.js';

export const PAGES = ['tsnbdfuse.1', 'tsnbdkit.1', 'tsnbdfuse-recipes.7'] as const;
export type PageName = (typeof PAGES)[number];

export const pageFile = (name: PageName): string => join(PACKAGE_ROOT, 'man', name);

/** The markdown that a page is made of. */
export const sourceOf = (name: PageName): string => readFileSync(`${pageFile(name)}.md`, 'utf8');

/** The page as its source has it now. @param date as ISO 8601 writes it */
export function pageOf(name: PageName, date: string): string {
  const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as {
    version: string;
  };
  return manualPage(sourceOf(name), { product: `tsnbdfuse ${version}`, date });
}

/** The date in the header of a page that was made before. */
export const dateOf = (page: string): string | undefined =>
  /^\.TH .*"(\d{4}-\d\d-\d\d)"/m.exec(page)?.[1];
