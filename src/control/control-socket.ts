/**
 * The control socket of a mount: whoever may connect asks how the mount does. One line of JSON for a question,
 * one for the answer; see `conversation.ts`.
 */

import { chmodSync, rmdirSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { errno } from '../errno.js';
import { native } from '../native.js';
import type { MountStatus } from '../observe/mount-status.js';
import { Listener } from '../server/listen.js';
import { traceMain } from '../trace.js';
import {
  MAX_SOCKET_PATH,
  controlFiles,
  isGone,
  makePlace,
  ourSurroundings,
  placesOf,
  socketName,
  triedText,
} from './places.js';
import type { Surroundings } from './places.js';

/** More than that are sent away: somebody is making fun of us. */
const MOST_CONVERSATIONS = 16;
/** Another one may be removing the directory, as it was its last, while we are about to use it. */
const ATTEMPTS = 3;

/** Whether nobody listens to a socket any more. */
function isDeserted(path: string): boolean {
  const fd = native.unixConnect(path);
  if (fd >= 0) native.close(fd);
  return fd === -errno.ECONNREFUSED;
}

/** Removes the socket of a process that was killed, once it is sure that it is one. */
export function removeDeserted({
  path,
  pid,
}: {
  readonly path: string;
  readonly pid: number;
}): void {
  // In a container the numbers of processes are others, so that one of them says nothing alone.
  if (!isGone(pid) || !isDeserted(path)) return;
  try {
    rmSync(path);
    rmdirSync(dirname(path));
  } catch {
    // It is not ours to remove, somebody was faster, or the directory is in use.
  }
}

export class ControlSocket {
  readonly path: string;
  readonly #listener: Listener;
  readonly #conversations = new Set<Socket>();
  #open = 0;
  #closed = false;

  private constructor(path: string, listener: Listener) {
    this.path = path;
    this.#listener = listener;
  }

  /**
   * Listens; who connects waits until there is something to be told. Takes away what processes that were killed
   * have left. To be called before the mount, which may hide the directory: all of it is done at once, and would
   * wait for ourselves.
   * @param mountpoint absolute, without symbolic links
   * @throws Error with what was tried
   */
  static open(mountpoint: string, surroundings: Surroundings = ourSurroundings()): ControlSocket {
    const tried: [string, unknown][] = [];
    for (const place of placesOf(surroundings)) {
      try {
        if (place === mountpoint || place.startsWith(join(mountpoint, '/'))) {
          throw new Error('the mount hides it');
        }
        return ControlSocket.#openIn(place, mountpoint, surroundings.uid);
      } catch (error) {
        tried.push([place, error]);
      }
    }
    throw new Error(triedText(tried));
  }

  static #openIn(place: string, mountpoint: string, uid: number): ControlSocket {
    const path = join(place, socketName(mountpoint, process.pid));
    if (Buffer.byteLength(path) > MAX_SOCKET_PATH) throw new Error('too long a path for a socket');
    for (let attempt = 1; ; attempt++) {
      makePlace(place, uid);
      // Of an earlier process with our number.
      if (isDeserted(path)) rmSync(path, { force: true });
      try {
        const socket = new ControlSocket(path, Listener.unix(path));
        socket.#settle(uid);
        return socket;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || attempt === ATTEMPTS) throw error;
      }
    }
  }

  #settle(uid: number): void {
    try {
      chmodSync(this.path, 0o600);
      for (const file of controlFiles(dirname(this.path), uid)) {
        if (file.path !== this.path) removeDeserted(file);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Answers from now on. @param status called for each question */
  serve(status: () => MountStatus): void {
    this.#listener.start({
      accepted: (fd) => void this.#accepted(fd, status),
      failed: (error) => traceMain('no more questions are answered: %s', error.message),
    });
  }

  async #accepted(fd: number, status: () => MountStatus): Promise<void> {
    if (this.#open >= MOST_CONVERSATIONS) {
      native.close(fd);
      return;
    }
    this.#open++;
    let isOurs = true;
    try {
      // Seldom needed.
      const { converse } = await import('./conversation.js');
      if (this.#closed) return;
      isOurs = false;
      const socket = converse(fd, status);
      this.#conversations.add(socket);
      await new Promise((resolve) => socket.once('close', resolve));
      this.#conversations.delete(socket);
    } catch (error) {
      traceMain('a question cannot be answered: %s', error);
    } finally {
      if (isOurs) native.close(fd);
      this.#open--;
    }
  }

  /** Removes the socket, and the directory where it was the last one. Never throws; may be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listener.close();
    for (const socket of this.#conversations) socket.destroy();
    try {
      rmdirSync(dirname(this.path));
    } catch {
      // There are others in it.
    }
  }
}
