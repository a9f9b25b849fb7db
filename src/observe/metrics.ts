/** What a mount has done, for Prometheus. */

import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';
import type { Metric } from 'prom-client';
import { STATES } from './mount-status.js';
import type { MountStatus } from './mount-status.js';
import { OPERATIONS } from './operations.js';
import type { OperationName, Operations } from './operations.js';

/** The bounds of the buckets of latency: 2^4 to 2^25 µs, from 16 µs to half a minute. */
const FIRST_BOUND = 4;
const LAST_BOUND = 25;

export interface MetricsSource {
  readonly status: () => MountStatus;
  readonly operations: Operations;
}

/** A counter whose figure is counted elsewhere: it is put in when it is asked for. */
function counter(registry: Registry, name: string, help: string, value: () => number): Counter {
  return new Counter({
    name,
    help,
    registers: [registry],
    collect() {
      this.reset();
      this.inc(value());
    },
  });
}

function gauge(registry: Registry, name: string, help: string, value: () => number): Gauge {
  return new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(value());
    },
  });
}

function byOperation(
  registry: Registry,
  name: string,
  help: string,
  value: (operation: OperationName) => number,
): Counter {
  return new Counter({
    name,
    help,
    labelNames: ['operation'],
    registers: [registry],
    collect() {
      this.reset();
      for (const operation of OPERATIONS) this.inc({ operation }, value(operation));
    },
  });
}

const DURATION = 'tsnbdfuse_operation_duration_seconds';

interface Sample {
  readonly metricName: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/** The library's own histogram takes one value at a time, and we have counts. */
function durations(operations: Operations): object {
  const samples = (operation: OperationName): Sample[] => {
    const { latency } = operations[operation];
    const buckets = latency.below(FIRST_BOUND, LAST_BOUND).map((value, i) => ({
      metricName: `${DURATION}_bucket`,
      labels: { le: 2 ** (FIRST_BOUND + i) / 1e6, operation },
      value,
    }));
    return [
      ...buckets,
      {
        metricName: `${DURATION}_bucket`,
        labels: { le: '+Inf', operation },
        value: latency.count,
      },
      { metricName: `${DURATION}_sum`, labels: { operation }, value: latency.sum / 1000 },
      { metricName: `${DURATION}_count`, labels: { operation }, value: latency.count },
    ];
  };
  return {
    name: DURATION,
    help: 'Time from a request to its answer, of those that succeeded.',
    type: 'histogram',
    aggregator: 'sum',
    labelNames: ['operation'],
    reset: () => undefined,
    get: () =>
      Promise.resolve({
        name: DURATION,
        help: 'Time from a request to its answer, of those that succeeded.',
        type: 'histogram',
        aggregator: 'sum',
        values: OPERATIONS.flatMap(samples),
      }),
  };
}

/** @param version of this program */
export function makeRegistry({ status, operations }: MetricsSource, version: string): Registry {
  const registry = new Registry();
  const bytes = (name: string, what: string, operation: OperationName): void => {
    const help = `Bytes that were ${what}.`;
    counter(registry, `tsnbdfuse_${name}_bytes_total`, help, () => operations[operation].bytes);
  };
  bytes('read', 'read', 'read');
  bytes('written', 'written', 'write');
  bytes('trimmed', 'trimmed, as with --trim', 'trim');
  bytes('zeroed', 'zeroed, as by fallocate', 'zero');
  byOperation(
    registry,
    'tsnbdfuse_operations_total',
    'Operations that succeeded.',
    (operation) => operations[operation].count,
  );
  byOperation(
    registry,
    'tsnbdfuse_operation_errors_total',
    'Operations that failed.',
    (operation) => operations[operation].errors,
  );
  registry.registerMetric(durations(operations) as Metric);
  counter(
    registry,
    'tsnbdfuse_reconnects_total',
    'How often the server was lost and connected to again.',
    () => status().reconnects ?? 0,
  );
  gauge(
    registry,
    'tsnbdfuse_connections',
    'Connections to the server.',
    () => status().connections ?? 0,
  );
  gauge(
    registry,
    'tsnbdfuse_requests_in_flight',
    'Requests of the kernel that are not answered yet.',
    () => status().inFlight ?? 0,
  );
  gauge(
    registry,
    'tsnbdfuse_unflushed_bytes',
    'Bytes that were written, that no flush has covered, and that are kept.',
    () => status().unflushedBytes ?? 0,
  );
  gauge(registry, 'tsnbdfuse_disk_size_bytes', 'Size of the disk.', () => Number(status().size));
  gauge(
    registry,
    'tsnbdfuse_mount_time_seconds',
    'When the disk was mounted, in seconds since the epoch.',
    () => Date.parse(status().since ?? '') / 1000,
  );
  describeMount(registry, status, version);
  // As rarely as it still tells something: each look wakes the process.
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 });
  return registry;
}

function describeMount(registry: Registry, status: () => MountStatus, version: string): void {
  new Gauge({
    name: 'tsnbdfuse_state',
    help: 'The state of the mount: 1 for the one that it is in.',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      const { state } = status();
      const own = STATES.filter((one) => one !== 'stale' && one !== 'no-answer');
      for (const one of own) this.set({ state: one }, one === state ? 1 : 0);
    },
  });
  new Gauge({
    name: 'tsnbdfuse_info',
    help: 'What the mount is; always 1.',
    labelNames: ['mountpoint', 'file', 'server', 'cache', 'version'],
    registers: [registry],
    collect() {
      const { mountpoint, file, server, cache } = status();
      const labels = { mountpoint, file: file ?? '', server: server ?? '', cache: cache ?? '' };
      this.set({ ...labels, version }, 1);
    },
  });
}
