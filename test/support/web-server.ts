/** Files by HTTP, with ranges, as nbdkit's curl plugin asks for them. */

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, normalize } from 'node:path';
import { pipeline } from 'node:stream/promises';

export interface WebServer {
  readonly port: number;
  readonly close: () => Promise<void>;
}

async function answer(
  folder: string,
  { method, url = '/', headers }: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = join(folder, normalize(new URL(url, 'http://localhost').pathname));
  const { size } = await stat(path);
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? '') ?? [];
  const start = Number(first ?? 0);
  const end = last === undefined || last === '' ? size - 1 : Math.min(Number(last), size - 1);
  response.setHeader('Accept-Ranges', 'bytes');
  response.setHeader('Content-Length', end - start + 1);
  if (first !== undefined) response.setHeader('Content-Range', `bytes ${start}-${end}/${size}`);
  response.writeHead(first === undefined ? 200 : 206);
  if (method === 'HEAD') response.end();
  else await pipeline(createReadStream(path, { start, end }), response);
}

/** @param folder whose files are served; it need not be there yet */
export async function serveFiles(folder: string): Promise<WebServer> {
  const server = createServer((request, response) => {
    answer(folder, request, response).catch(() => {
      if (response.headersSent) response.destroy();
      else response.writeHead(404).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
