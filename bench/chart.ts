/** The ratios as a picture: SVG, drawn by echarts without a browser. */

import { createRequire } from 'node:module';
import type { Contender } from './contenders.js';
import type { Job } from './jobs.js';
import { machineText } from './machine.js';
import type { Report } from './report.js';
import type { JobSummary } from './summary.js';
import { digits } from './table.js';

interface Chart {
  setOption(option: object): void;
  renderToSVGString(): string;
  dispose(): void;
}

interface Library {
  init(
    element: null,
    theme: null,
    options: { renderer: 'svg'; ssr: true; width: number; height: number },
  ): Chart;
}

// Its own types need those of a browser, which nothing else here is to see.
const echarts = createRequire(import.meta.url)('echarts') as Library;

const WIDTH = 1000;
const ROW_HEIGHT = 46;
const MARGIN = { top: 104, bottom: 66, left: 400, right: 70 };
const FONT = 'Helvetica, Arial, DejaVu Sans, sans-serif';
const COLOURS: Readonly<Partial<Record<Contender, string>>> = {
  tsnbdfuse: '#2563a8',
  'qemu-storage-daemon': '#c9822b',
  'nbd engine': '#b9bec6',
};

interface Bar {
  readonly value: number;
  readonly label: { readonly show: boolean; readonly formatter: string };
}

/** What is drawn: jobs of front ends, of which the second is nbdfuse, that have a ratio. */
export function drawnJobs(report: Report): JobSummary[] {
  return report.jobs.filter(
    ({ job, ratio }) => job.contenders[1] === 'nbdfuse' && ratio !== undefined,
  );
}

function bar(job: JobSummary, contender: Contender): Bar | '-' {
  const summary = job.contenders.find((other) => other.contender === contender);
  // None, where it cannot do the job.
  if (summary?.ratio === undefined) return '-';
  const value = summary.ratio.median;
  const bound = contender === 'tsnbdfuse' && job.ratioIsBound ? '>' : '';
  return { value, label: { show: true, formatter: `${bound}${digits(value)}` } };
}

/** The name, and below it the server: the two side by side are too long. */
const labelOf = (job: Job): string =>
  job.server === undefined ? job.name : `${job.name}\n${job.server}`;

/** A stroke across the bars of a job where its goal is. */
function goalMarks(jobs: readonly JobSummary[]): object {
  return {
    name: 'goal',
    type: 'scatter',
    symbol: 'rect',
    symbolSize: [3, ROW_HEIGHT * 0.9],
    itemStyle: { color: '#b3261e' },
    data: jobs.map(({ job }) => job.goals.ratio ?? '-'),
    // Behind the bars, whose labels it would cross out.
    z: 1,
  };
}

/** The option object of echarts. */
export function chartOption(report: Report): object {
  const jobs = drawnJobs(report);
  const series = (['tsnbdfuse', 'qemu-storage-daemon', 'nbd engine'] as const).map((contender) => ({
    name: contender === 'nbd engine' ? "fio's nbd engine, no FUSE" : contender,
    type: 'bar',
    barGap: '10%',
    barCategoryGap: '28%',
    itemStyle: { color: COLOURS[contender] },
    label: {
      position: 'right',
      fontSize: 11,
      fontFamily: FONT,
      color: '#333333',
      backgroundColor: 'rgba(255, 255, 255, 0.85)',
    },
    data: jobs.map((job) => bar(job, contender)),
    ...(contender === 'tsnbdfuse' ? { markLine: LINE_OF_NBDFUSE } : {}),
  }));
  const values = jobs.flatMap((job) => [
    job.job.goals.ratio ?? 1,
    ...job.contenders.map(({ ratio }) => ratio?.median ?? 1),
  ]);
  return {
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: { fontFamily: FONT },
    title: {
      text: 'Times as fast as nbdfuse',
      subtext: `medians of ${report.rounds} alternating rounds; ${machineText(report.machine).split('\n')[0] ?? ''}`,
      left: 'center',
      textStyle: { fontSize: 18, fontFamily: FONT },
      subtextStyle: { fontSize: 12, fontFamily: FONT, color: '#555555' },
    },
    legend: {
      bottom: 6,
      itemGap: 40,
      itemWidth: 16,
      itemHeight: 11,
      textStyle: { fontFamily: FONT },
    },
    grid: MARGIN,
    xAxis: {
      type: 'log',
      // Whole decades, with 1 among them, where nbdfuse is.
      min: 10 ** Math.floor(Math.log10(Math.min(0.99, ...values))),
      max: 10 ** Math.ceil(Math.log10(Math.max(1.01, ...values))),
      axisLabel: { formatter: '{value}x', fontFamily: FONT },
      splitLine: { lineStyle: { color: '#e3e6ea' } },
    },
    yAxis: {
      type: 'category',
      inverse: true,
      data: jobs.map(({ job }) => labelOf(job)),
      axisTick: { show: false },
      axisLabel: { fontSize: 12, lineHeight: 15, fontFamily: FONT },
    },
    series: [...series, goalMarks(jobs)],
  };
}

const LINE_OF_NBDFUSE = {
  symbol: 'none',
  silent: true,
  label: { formatter: 'nbdfuse', position: 'start', fontFamily: FONT, distance: 6 },
  lineStyle: { color: '#333333', type: 'solid', width: 1.5 },
  data: [{ xAxis: 1 }],
};

/** An SVG document. */
export function drawChart(report: Report): string {
  const height = MARGIN.top + MARGIN.bottom + ROW_HEIGHT * Math.max(1, drawnJobs(report).length);
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  try {
    chart.setOption(chartOption(report));
    return `${chart.renderToSVGString()}\n`;
  } finally {
    chart.dispose();
  }
}
