/** Numbers of the NBD protocol, under the names of doc/proto.md of the NetworkBlockDevice project. */

/** Handshake. */
export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const CLISERV_MAGIC = 0x00420281861253n;
export const OPTION_REPLY_MAGIC = 0x3e889045565a9n;

/** Handshake flags of the server. */
export const NBD_FLAG_FIXED_NEWSTYLE = 1;
export const NBD_FLAG_NO_ZEROES = 2;

/** Options. */
export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Types of option replies. */
export const OptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_PLATFORM: 0x80000004,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_SHUTDOWN: 0x80000007,
  ERR_BLOCK_SIZE_REQD: 0x80000008,
  ERR_TOO_BIG: 0x80000009,
  ERR_EXT_HEADER_REQD: 0x8000000a,
} as const;

/** Kinds of NBD_REP_INFO. */
export const Info = {
  EXPORT: 0,
  NAME: 1,
  DESCRIPTION: 2,
  BLOCK_SIZE: 3,
} as const;

/** Transmission flags: what an export can do. */
export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** Requests. */
export const REQUEST_MAGIC = 0x25609513;
export const REQUEST_BYTES = 28;
/** With extended headers, where lengths have 64 bits. */
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const EXTENDED_REQUEST_BYTES = 32;

export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;
export type CommandType = (typeof Command)[keyof typeof Command];

export const CommandFlag = {
  FUA: 1,
  NO_HOLE: 2,
  DF: 4,
  REQ_ONE: 8,
  FAST_ZERO: 16,
  PAYLOAD_LEN: 32,
} as const;

/** Replies. */
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const SIMPLE_REPLY_BYTES = 16;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const STRUCTURED_REPLY_BYTES = 20;
export const EXTENDED_REPLY_MAGIC = 0x6e8a278c;
export const EXTENDED_REPLY_BYTES = 32;

export const REPLY_FLAG_DONE = 1;

export const Chunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;
/** Chunk types with this bit set tell of an error, known or not. */
export const CHUNK_ERROR_BIT = 0x8000;

export const BASE_ALLOCATION = 'base:allocation';
/** Status flags of base:allocation. */
export const STATE_HOLE = 1;
export const STATE_ZERO = 2;

/** The longest string (export name, meta context, message) that the protocol allows. */
export const MAX_STRING = 4096;
/** The most a request may carry where the server tells nothing else. */
export const DEFAULT_MAX_PAYLOAD = 32 * 1024 * 1024;

export const DEFAULT_PORT = 10809;

/** The highest context id and port of vsock(7); the number above it stands for any. */
export const MAX_VSOCK = 0xffff_fffe;
