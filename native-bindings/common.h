/* Shared by the files of the addon. See README.md for the conventions. */

#ifndef TSNBDFUSE_COMMON_H
#define TSNBDFUSE_COMMON_H

#include <node_api.h>

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kernel moves no more in one call, whatever it was asked. */
#define MAX_TRANSFER 0x7ffff000u

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
/*
 * A string as UTF-8, which fits in size with a NUL behind it. That a string is too long, or holds a
 * NUL, is not a bug of the caller, who may have it from a user: the result of the call is then the
 * problem, a positive errno, which is 0 otherwise.
 */
bool get_text(napi_env env, napi_value value, char *result, size_t size, int *problem);
/* The same, and NULs may be in it. */
bool get_bytes(napi_env env, napi_value value, char *result, size_t size, size_t *length,
               int *problem);
/* length bytes of a Uint8Array from start on; that they lie in it is checked. */
bool get_place(napi_env env, napi_value array, uint32_t start, uint32_t length, uint8_t **result);
/* The elements of a typed array, at least as many as given. */
bool get_elements(napi_env env, napi_value array, napi_typedarray_type type, uint64_t at_least,
                  void **result);

/* A result or a negated errno; transfers, descriptors and errno values all are below 2 GiB. */
napi_value make_int(napi_env env, int64_t value);

/* Work on libuv's thread pool whose result becomes the value of a promise. */
struct async_work;
typedef void (*async_call)(struct async_work *work);
struct async_work {
  napi_async_work handle;
  napi_deferred deferred;
  async_call call;      /* on another thread: touches nothing of JavaScript */
  int problem;          /* with the arguments; the call is then not made */
  bool wide;            /* the result becomes a BigInt, not a number */
  bool gives_ownership; /* the result is a descriptor: closed where nobody takes it */
  bool again;           /* set by the call: it has no result yet and is to be made once more */
  const char *name;
  int64_t result;
  int64_t deadline;
  int fd;
  int flags;
  int64_t offset;
  int64_t length;
  napi_ref held; /* what JavaScript must not collect before the end, or NULL */
  char path[];
};
/* @param path_size how many bytes work->path has. NULL after it has thrown. */
struct async_work *new_work(napi_env env, size_t path_size);
/* Undoes new_work, where the work is not started. */
void free_work(napi_env env, struct async_work *work);
/* Takes the work over; gives the promise, or NULL after it has thrown. */
napi_value start_work(napi_env env, struct async_work *work, const char *name, async_call call);

/* Each file adds its functions to the exports. */
bool define(napi_env env, napi_value exports, const char *name, napi_callback function);
bool define_io(napi_env env, napi_value exports);
bool define_poll(napi_env env, napi_value exports);
bool define_busy_poll(napi_env env, napi_value exports);
bool define_socket(napi_env env, napi_value exports);
bool define_datagram(napi_env env, napi_value exports);
bool define_descriptor(napi_env env, napi_value exports);
bool define_process(napi_env env, napi_value exports);
bool define_fuse(napi_env env, napi_value exports);
bool define_file(napi_env env, napi_value exports);

#endif
