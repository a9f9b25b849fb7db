/**
 * The pages of a sparse disk, found by their number. Pages are grouped in directories, so that a
 * stretch without any costs little to pass over: a disk of 1 TiB is 32,768 of them.
 */

/** Of the disk; what is allocated is allocated in pages. */
export const PAGE_BYTES = 32 * 1024;
const PAGES = 1024;
export const DIRECTORY_BYTES = PAGE_BYTES * PAGES;

/**
 * Stands for a page that is allocated, as far as the disk's users can tell, and was never written.
 * Nothing is written to it.
 */
export const ZERO_PAGE: Buffer = Buffer.alloc(PAGE_BYTES);

/** A page is undefined where there is a hole. */
export type Directory = (Buffer | undefined)[];

/** A directory of nothing but ZERO_PAGE, which others are copied from. */
const ZERO_DIRECTORY: Directory = new Array<Buffer | undefined>(PAGES).fill(ZERO_PAGE);

/** Freed pages that wait for the next write, so that trimming and writing in turn costs no allocation. */
const SPARE_PAGES = 64;

export class PageMap {
  readonly #directories = new Map<number, Directory>();
  readonly #spare: Buffer[] = [];
  #allocated = 0;

  /** How many pages hold memory. */
  get allocated(): number {
    return this.#allocated;
  }

  /** @param number of the page in its directory */
  get(directory: number, number: number): Buffer | undefined {
    return this.#directories.get(directory)?.[number];
  }

  directory(directory: number): Directory | undefined {
    return this.#directories.get(directory);
  }

  /**
   * The page, to be written to.
   * @param whole whether all of it will be written, so that it need not be zeroed
   * @throws RangeError if there is no memory for it
   */
  writable(directory: number, number: number, whole: boolean): Buffer {
    let pages = this.#directories.get(directory);
    const found = pages?.[number];
    if (found !== undefined && found !== ZERO_PAGE) return found;
    const page = this.#spare.pop() ?? Buffer.allocUnsafeSlow(PAGE_BYTES);
    if (!whole) page.fill(0);
    pages = this.#ownDirectory(directory, pages);
    pages[number] = page;
    this.#allocated++;
    return page;
  }

  /** Makes pages read as zeroes: holes, or allocated ones. @param end one past the last */
  clear(directory: number, start: number, end: number, hole: boolean): void {
    const pages = this.#directories.get(directory);
    if (pages === undefined && hole) return;
    if (pages !== undefined && pages !== ZERO_DIRECTORY) {
      for (let i = start; i < end; i++) this.#free(pages[i]);
    }
    if (start === 0 && end === PAGES) {
      if (hole) this.#directories.delete(directory);
      else this.#directories.set(directory, ZERO_DIRECTORY);
    } else {
      this.#ownDirectory(directory, pages).fill(hole ? undefined : ZERO_PAGE, start, end);
    }
  }

  /** Makes all pages of the directories into holes. @param end one past the last */
  clearDirectories(start: number, end: number): void {
    if (end - start > this.#directories.size) {
      // A range much larger than what there is: go by what there is.
      for (const directory of [...this.#directories.keys()]) {
        if (directory >= start && directory < end) this.clear(directory, 0, PAGES, true);
      }
      return;
    }
    for (let i = start; i < end; i++) this.clear(i, 0, PAGES, true);
  }

  #ownDirectory(directory: number, pages: Directory | undefined): Directory {
    if (pages !== undefined && pages !== ZERO_DIRECTORY) return pages;
    const own = pages?.slice() ?? new Array<Buffer | undefined>(PAGES).fill(undefined);
    this.#directories.set(directory, own);
    return own;
  }

  #free(page: Buffer | undefined): void {
    if (page === undefined || page === ZERO_PAGE) return;
    this.#allocated--;
    if (this.#spare.length < SPARE_PAGES) this.#spare.push(page);
  }
}
