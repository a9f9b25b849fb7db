/** What is made of the figures of several rounds. */

export interface Spread {
  readonly median: number;
  readonly least: number;
  readonly most: number;
}

/** NaN of no values. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

export function spread(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined;
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/**
 * The ratios of two series round by round: what disturbs the machine in one round disturbs both sides
 * of its ratio. A round in which either has no figure counts for nothing.
 */
export function ratios(
  above: readonly (number | undefined)[],
  below: readonly (number | undefined)[],
): number[] {
  const found: number[] = [];
  above.forEach((value, round) => {
    const other = below[round];
    if (value !== undefined && other !== undefined && other > 0) found.push(value / other);
  });
  return found;
}
