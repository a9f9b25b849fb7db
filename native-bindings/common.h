/* Shared by the files of the addon. See README.md for the conventions. */

#ifndef TSNBDFUSE_COMMON_H
#define TSNBDFUSE_COMMON_H

#include <node_api.h>

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A system call that a signal interrupted is made again. */
#define RETRY(result, call) \
  do {                      \
    (result) = (call);      \
  } while ((result) < 0 && errno == EINTR)

/* The result of a system call, or the negated errno. */
static inline int64_t or_errno(int64_t result) { return result < 0 ? -(int64_t)errno : result; }

/*
 * Arguments. Each gives false after it has thrown a TypeError or a RangeError: the caller then
 * returns NULL at once.
 */
bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values,
                   napi_value *self);
bool get_int(napi_env env, napi_value value, int32_t *result);
bool get_uint(napi_env env, napi_value value, uint32_t *result);
bool get_bool(napi_env env, napi_value value, bool *result);
bool get_bigint(napi_env env, napi_value value, int64_t *result);
/* A string of at most size - 1 bytes of UTF-8, which may hold NULs; length may be NULL if it must not. */
bool get_string(napi_env env, napi_value value, char *result, size_t size, size_t *length);
/* length bytes of a Uint8Array from start on; that they lie in it is checked. */
bool get_place(napi_env env, napi_value array, uint32_t start, uint32_t length, uint8_t **result);

napi_value make_int(napi_env env, int64_t value);

/* Work on libuv's thread pool whose result becomes the value of a promise. */
struct async_work;
typedef void (*async_call)(struct async_work *work);
struct async_work {
  napi_async_work handle;
  napi_deferred deferred;
  async_call call; /* on another thread: touches nothing of JavaScript */
  bool wide;       /* the result becomes a BigInt, not a number */
  int64_t result;
  int fd;
  int flags;
  int64_t offset;
  int64_t length;
  char path[4096];
};
struct async_work *new_work(napi_env env);
/* Takes the work over; gives the promise, or NULL after it has thrown. */
napi_value start_work(napi_env env, struct async_work *work, const char *name, async_call call);

/* Each file adds its functions to the exports. */
bool define(napi_env env, napi_value exports, const char *name, napi_callback function);
bool define_io(napi_env env, napi_value exports);
bool define_poll(napi_env env, napi_value exports);
bool define_socket(napi_env env, napi_value exports);
bool define_fuse(napi_env env, napi_value exports);
bool define_async(napi_env env, napi_value exports);

#endif
