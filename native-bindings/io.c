/* Reading and writing between a descriptor and places in buffers; the calls of the data path. */

#include "common.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

/* IOV_MAX on Linux. */
#define MAX_PARTS 1024

static bool get_transfer(napi_env env, napi_callback_info info, int32_t *fd, uint8_t **place,
                         uint32_t *length) {
  napi_value arguments[4];
  uint32_t start;
  return get_arguments(env, info, 4, arguments, NULL) && get_int(env, arguments[0], fd) &&
         get_uint(env, arguments[2], &start) && get_uint(env, arguments[3], length) &&
         get_place(env, arguments[1], start, *length, place);
}

static uint32_t at_most(uint32_t length) { return length < MAX_TRANSFER ? length : MAX_TRANSFER; }

/* read(fd, bytes, start, length) */
static napi_value read_place(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint8_t *place;
  uint32_t length;
  if (!get_transfer(env, info, &fd, &place, &length)) return NULL;
  ssize_t result;
  RETRY(result, read(fd, place, at_most(length)));
  return make_int(env, or_errno(result));
}

/*
 * write(fd, bytes, start, length). Plain write(2) does for sockets as well: Node ignores SIGPIPE from
 * its start on, for all of its threads, so that a closed one gives EPIPE and no signal. MSG_NOSIGNAL
 * would take another system call for what is no socket.
 */
static napi_value write_place(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint8_t *place;
  uint32_t length;
  if (!get_transfer(env, info, &fd, &place, &length)) return NULL;
  ssize_t result;
  RETRY(result, write(fd, place, at_most(length)));
  return make_int(env, or_errno(result));
}

/* The parts of a gathered transfer: (fd, buffers, ranges, first, count). */
static bool get_parts(napi_env env, napi_callback_info info, int32_t *fd, struct iovec *parts,
                      uint32_t *count) {
  napi_value arguments[5], buffers[MAX_PARTS];
  uint32_t first;
  void *elements;
  uint8_t *place;
  bool is_array = false;
  if (!get_arguments(env, info, 5, arguments, NULL) || !get_int(env, arguments[0], fd) ||
      !get_uint(env, arguments[3], &first) || !get_uint(env, arguments[4], count)) {
    return false;
  }
  if (*count < 1 || *count > MAX_PARTS) {
    napi_throw_range_error(env, NULL, "1 to 1024 parts are expected");
    return false;
  }
  /* No proxy, whose traps could be anything. */
  if (napi_is_array(env, arguments[1], &is_array) != napi_ok || !is_array) {
    napi_throw_type_error(env, NULL, "an array of Uint8Arrays is expected");
    return false;
  }
  /*
   * First all buffers, then all pointers: an element with a getter runs JavaScript, which could take
   * from below us what we already point to. The handles pile up until the call returns, which costs
   * less than scopes for them.
   */
  for (uint32_t i = 0; i < *count; i++) {
    if (napi_get_element(env, arguments[1], first + i, &buffers[i]) != napi_ok) return false;
  }
  if (!get_elements(env, arguments[2], napi_uint32_array, 2 * ((uint64_t)first + *count), &elements)) {
    return false;
  }
  const uint32_t *ranges = (const uint32_t *)elements + 2 * (size_t)first;
  for (uint32_t i = 0; i < *count; i++) {
    if (!get_place(env, buffers[i], ranges[2 * i], ranges[2 * i + 1], &place)) return false;
    parts[i].iov_base = place;
    parts[i].iov_len = ranges[2 * i + 1];
  }
  return true;
}

/* readv(fd, buffers, ranges, first, count) */
static napi_value read_parts(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint32_t count;
  struct iovec parts[MAX_PARTS];
  if (!get_parts(env, info, &fd, parts, &count)) return NULL;
  ssize_t result;
  RETRY(result, readv(fd, parts, (int)count));
  return make_int(env, or_errno(result));
}

/* writev(fd, buffers, ranges, first, count) */
static napi_value write_parts(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint32_t count;
  struct iovec parts[MAX_PARTS];
  if (!get_parts(env, info, &fd, parts, &count)) return NULL;
  ssize_t result;
  RETRY(result, writev(fd, parts, (int)count));
  return make_int(env, or_errno(result));
}

bool define_io(napi_env env, napi_value exports) {
  return define(env, exports, "read", read_place) && define(env, exports, "write", write_place) &&
         define(env, exports, "readv", read_parts) && define(env, exports, "writev", write_parts);
}
