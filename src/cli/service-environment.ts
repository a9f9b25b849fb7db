/** What systemd tells a service in its environment (sd_notify(3), sd_watchdog_enabled(3)). */

/** What a service manager has put into the environment. */
export interface ServiceEnvironment {
  readonly socket: string;
  readonly watchdogMicroseconds: string | undefined;
  readonly watchdogPid: string | undefined;
}

const VARIABLES = ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID'] as const;

/** Takes it out of the environment, so that no program that we start speaks in our name. */
export function takeServiceEnvironment(env: NodeJS.ProcessEnv): ServiceEnvironment | undefined {
  const [socket, watchdogMicroseconds, watchdogPid] = VARIABLES.map((name) => env[name]);
  for (const name of VARIABLES) Reflect.deleteProperty(env, name);
  if (socket === undefined || socket === '') return undefined;
  return { socket, watchdogMicroseconds, watchdogPid };
}
