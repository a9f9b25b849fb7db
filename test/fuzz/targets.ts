/** All that is fuzzed: a row for whatever reads what somebody else wrote. */

import type { Target } from './target.js';
import { clientDiskTarget } from './targets/client-disk.js';
import { clientHandshakeTarget } from './targets/client-handshake.js';
import { clientListingTarget } from './targets/client-listing.js';
import { clientRecoveryTarget } from './targets/client-recovery.js';
import { clientRepliesTarget } from './targets/client-replies.js';
import { clientSessionsTarget } from './targets/client-sessions.js';
import { fuseTarget } from './targets/fuse.js';
import { nativeTarget } from './targets/native-arguments.js';
import { partitionsTarget } from './targets/partitions.js';
import { serverHandshakeTarget } from './targets/server-handshake.js';
import { serverRequestsTarget } from './targets/server-requests.js';
import { serverSessionsTarget } from './targets/server-sessions.js';
import { uriTarget } from './targets/uri.js';

export const targets: readonly Target<unknown>[] = [
  clientHandshakeTarget,
  clientListingTarget,
  clientRepliesTarget,
  clientDiskTarget,
  clientSessionsTarget,
  clientRecoveryTarget,
  serverHandshakeTarget,
  serverRequestsTarget,
  serverSessionsTarget,
  fuseTarget,
  partitionsTarget,
  uriTarget,
  nativeTarget,
];
