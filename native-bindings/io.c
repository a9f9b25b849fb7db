/* Reading and writing between a descriptor and places in buffers; the calls of the data path. */

#include "common.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

/* IOV_MAX on Linux. */
#define MAX_PARTS 1024
/* The kernel moves no more in one call. */
#define MAX_TRANSFER 0x7ffff000u

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
 * write(fd, bytes, start, length). Node ignores SIGPIPE for the whole process, so that a closed
 * socket gives EPIPE.
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
  napi_value arguments[5];
  uint32_t first;
  if (!get_arguments(env, info, 5, arguments, NULL) || !get_int(env, arguments[0], fd) ||
      !get_uint(env, arguments[3], &first) || !get_uint(env, arguments[4], count)) {
    return false;
  }
  if (*count < 1 || *count > MAX_PARTS) {
    napi_throw_range_error(env, NULL, "1 to 1024 parts are expected");
    return false;
  }
  napi_typedarray_type type;
  size_t elements;
  void *data;
  if (napi_get_typedarray_info(env, arguments[2], &type, &elements, &data, NULL, NULL) != napi_ok ||
      type != napi_uint32_array) {
    napi_throw_type_error(env, NULL, "a Uint32Array is expected");
    return false;
  }
  if (((uint64_t)first + *count) * 2 > elements) {
    napi_throw_range_error(env, NULL, "parts lie outside their ranges");
    return false;
  }
  const uint32_t *ranges = (const uint32_t *)data + (size_t)first * 2;
  for (uint32_t i = 0; i < *count; i++) {
    napi_handle_scope scope;
    napi_value buffer;
    uint8_t *place;
    /* Many parts would otherwise pile up handles until the call returns. */
    if (napi_open_handle_scope(env, &scope) != napi_ok) return false;
    bool found = napi_get_element(env, arguments[1], first + i, &buffer) == napi_ok &&
                 get_place(env, buffer, ranges[2 * i], ranges[2 * i + 1], &place);
    napi_close_handle_scope(env, scope);
    if (!found) return false;
    parts[i].iov_base = place;
    parts[i].iov_len = ranges[2 * i + 1];
  }
  return true;
}

static napi_value read_parts(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint32_t count;
  struct iovec parts[MAX_PARTS];
  if (!get_parts(env, info, &fd, parts, &count)) return NULL;
  ssize_t result;
  RETRY(result, readv(fd, parts, (int)count));
  return make_int(env, or_errno(result));
}

static napi_value write_parts(napi_env env, napi_callback_info info) {
  int32_t fd;
  uint32_t count;
  struct iovec parts[MAX_PARTS];
  if (!get_parts(env, info, &fd, parts, &count)) return NULL;
  ssize_t result;
  RETRY(result, writev(fd, parts, (int)count));
  return make_int(env, or_errno(result));
}

static napi_value close_descriptor(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t fd;
  if (!get_arguments(env, info, 1, arguments, NULL) || !get_int(env, arguments[0], &fd)) return NULL;
  /* Never again after EINTR: on Linux the descriptor is closed all the same. */
  return make_int(env, or_errno(close(fd)));
}

static napi_value duplicate(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t fd;
  if (!get_arguments(env, info, 1, arguments, NULL) || !get_int(env, arguments[0], &fd)) return NULL;
  return make_int(env, or_errno(fcntl(fd, F_DUPFD_CLOEXEC, 0)));
}

/* Sets or clears one flag: get and set are F_GETFL and F_SETFL, or those for descriptor flags. */
static napi_value set_flag(napi_env env, napi_callback_info info, int get, int set, int flag) {
  napi_value arguments[2];
  int32_t fd;
  bool on;
  if (!get_arguments(env, info, 2, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_bool(env, arguments[1], &on)) {
    return NULL;
  }
  int flags = fcntl(fd, get);
  if (flags < 0) return make_int(env, or_errno(flags));
  return make_int(env, or_errno(fcntl(fd, set, on ? flags | flag : flags & ~flag)));
}

static napi_value set_nonblocking(napi_env env, napi_callback_info info) {
  return set_flag(env, info, F_GETFL, F_SETFL, O_NONBLOCK);
}

static napi_value set_close_on_exec(napi_env env, napi_callback_info info) {
  return set_flag(env, info, F_GETFD, F_SETFD, FD_CLOEXEC);
}

bool define_io(napi_env env, napi_value exports) {
  return define(env, exports, "read", read_place) && define(env, exports, "write", write_place) &&
         define(env, exports, "readv", read_parts) && define(env, exports, "writev", write_parts) &&
         define(env, exports, "close", close_descriptor) && define(env, exports, "dup", duplicate) &&
         define(env, exports, "setNonblocking", set_nonblocking) &&
         define(env, exports, "setCloseOnExec", set_close_on_exec);
}
