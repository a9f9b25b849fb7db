/* Calls that may wait, on libuv's thread pool. */

#include "common.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void execute(napi_env env, void *data) {
  (void)env;
  struct async_work *work = data;
  work->call(work);
}

static void complete(napi_env env, napi_status status, void *data) {
  struct async_work *work = data;
  int64_t result = status == napi_cancelled ? -ECANCELED : work->result;
  napi_value value;
  napi_status made =
      work->wide ? napi_create_bigint_int64(env, result, &value) : napi_create_int64(env, result, &value);
  if (made == napi_ok) napi_resolve_deferred(env, work->deferred, value);
  napi_delete_async_work(env, work->handle);
  free(work);
}

struct async_work *new_work(napi_env env) {
  struct async_work *work = calloc(1, sizeof *work);
  if (work == NULL) napi_throw_error(env, "ENOMEM", "no memory for a call");
  return work;
}

napi_value start_work(napi_env env, struct async_work *work, const char *name, async_call call) {
  napi_value promise = NULL, name_value;
  work->call = call;
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &name_value) != napi_ok ||
      napi_create_async_work(env, NULL, name_value, execute, complete, work, &work->handle) != napi_ok) {
    free(work);
    napi_throw_error(env, NULL, "a call could not be prepared");
    return NULL;
  }
  if (napi_create_promise(env, &work->deferred, &promise) != napi_ok ||
      napi_queue_async_work(env, work->handle) != napi_ok) {
    napi_delete_async_work(env, work->handle);
    free(work);
    napi_throw_error(env, NULL, "a call could not be started");
    return NULL;
  }
  return promise;
}

static void allocate(struct async_work *work) {
  int result;
  RETRY(result, fallocate(work->fd, work->flags, work->offset, work->length));
  work->result = or_errno(result);
}

/* fallocate(fd, mode, offset, length): Promise */
static napi_value fallocate_call(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  struct async_work *work = new_work(env);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 4, arguments, NULL) || !get_int(env, arguments[0], &work->fd) ||
      !get_int(env, arguments[1], &work->flags) || !get_bigint(env, arguments[2], &work->offset) ||
      !get_bigint(env, arguments[3], &work->length)) {
    free(work);
    return NULL;
  }
  return start_work(env, work, "fallocate", allocate);
}

static void seek(struct async_work *work) {
  work->result = or_errno(lseek(work->fd, work->offset, work->flags));
}

/* lseek(fd, offset, whence): Promise of a BigInt */
static napi_value lseek_call(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct async_work *work = new_work(env);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 3, arguments, NULL) || !get_int(env, arguments[0], &work->fd) ||
      !get_bigint(env, arguments[1], &work->offset) || !get_int(env, arguments[2], &work->flags)) {
    free(work);
    return NULL;
  }
  work->wide = true;
  return start_work(env, work, "lseek", seek);
}

static void cut(struct async_work *work) {
  int result;
  RETRY(result, truncate(work->path, work->length));
  work->result = or_errno(result);
}

/* truncate(path, size): Promise */
static napi_value truncate_call(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct async_work *work = new_work(env);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_string(env, arguments[0], work->path, sizeof work->path, NULL) ||
      !get_bigint(env, arguments[1], &work->length)) {
    free(work);
    return NULL;
  }
  return start_work(env, work, "truncate", cut);
}

bool define_async(napi_env env, napi_value exports) {
  return define(env, exports, "fallocate", fallocate_call) &&
         define(env, exports, "lseek", lseek_call) && define(env, exports, "truncate", truncate_call);
}
