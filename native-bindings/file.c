/* Files: what Node's own fs module lacks, or cannot do beyond 2^53. All may wait, so all are asynchronous. */

#include "common.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

static void allocate(struct async_work *work) {
  int result;
  RETRY(result, fallocate(work->fd, work->flags, work->offset, work->length));
  work->result = or_errno(result);
}

/* fallocate(fd, mode, offset, length): Promise */
static napi_value fallocate_call(napi_env env, napi_callback_info info) {
  napi_value arguments[4];
  struct async_work *work = new_work(env, 0);
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
  off_t result;
  RETRY(result, lseek(work->fd, work->offset, work->flags));
  work->result = or_errno(result);
}

/* lseek(fd, offset, whence): Promise of a BigInt */
static napi_value lseek_call(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct async_work *work = new_work(env, 0);
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
  struct async_work *work = new_work(env, PATH_MAX);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_text(env, arguments[0], work->path, PATH_MAX, &work->problem) ||
      !get_bigint(env, arguments[1], &work->length)) {
    free(work);
    return NULL;
  }
  return start_work(env, work, "truncate", cut);
}

bool define_file(napi_env env, napi_value exports) {
  return define(env, exports, "fallocate", fallocate_call) &&
         define(env, exports, "lseek", lseek_call) && define(env, exports, "truncate", truncate_call);
}
