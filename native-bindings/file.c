/*
 * Files: what Node's own fs module lacks, or cannot do beyond 2^53. What may wait is asynchronous, which
 * is all but preadNow.
 */

#include "common.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x00000008
#endif

#define MAX_PIECES 1024

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

/*
 * Locks of the open file, and not of the process (F_OFD_SETLK of fcntl(2)): they end with its last descriptor,
 * and conflict within a process as well.
 */

static struct flock lock_of(const struct async_work *work, short type) {
  return (struct flock){
      .l_type = type, .l_whence = SEEK_SET, .l_start = work->offset, .l_len = work->length};
}

static void take_lock(struct async_work *work) {
  struct flock lock = lock_of(work, F_RDLCK);
  int result;
  RETRY(result, fcntl(work->fd, F_OFD_SETLK, &lock));
  work->result = or_errno(result);
}

static void find_lock(struct async_work *work) {
  struct flock lock = lock_of(work, F_WRLCK);
  int result;
  RETRY(result, fcntl(work->fd, F_OFD_GETLK, &lock));
  work->result = result < 0 ? or_errno(result) : lock.l_type != F_UNLCK;
}

static napi_value lock_call(napi_env env, napi_callback_info info, const char *name, async_call call) {
  napi_value arguments[3];
  struct async_work *work = new_work(env, 0);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 3, arguments, NULL) || !get_int(env, arguments[0], &work->fd) ||
      !get_bigint(env, arguments[1], &work->offset) ||
      !get_bigint(env, arguments[2], &work->length)) {
    free(work);
    return NULL;
  }
  return start_work(env, work, name, call);
}

/* lockShared(fd, offset, length): Promise */
static napi_value lock_shared_call(napi_env env, napi_callback_info info) {
  return lock_call(env, info, "lockShared", take_lock);
}

/* isLocked(fd, offset, length): Promise of 1 where another open file has any lock there, or of 0 */
static napi_value is_locked_call(napi_env env, napi_callback_info info) {
  return lock_call(env, info, "isLocked", find_lock);
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

/*
 * preadv2(2) with RWF_NOWAIT, which musl has from 1.2.5 on and old systems that run Node have not. The kernel
 * takes the offset in two halves, and on a 64-bit machine all of it from the first.
 */
static ssize_t read_at_once(int fd, const struct iovec *part, int64_t offset) {
  ssize_t result = syscall(SYS_preadv2, fd, part, 1L, (long)offset, (long)(offset >> 32), RWF_NOWAIT);
  /* A kernel that is older than the call, or a sandbox, cannot tell either. */
  if (result < 0 && errno == ENOSYS) errno = EOPNOTSUPP;
  return result;
}

/* preadNow(fd, bytes, start, length, offset) */
static napi_value read_now(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  int32_t fd;
  uint32_t start, length;
  uint8_t *place;
  int64_t offset;
  if (!get_arguments(env, info, 5, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_uint(env, arguments[2], &start) || !get_uint(env, arguments[3], &length) ||
      !get_bigint(env, arguments[4], &offset) ||
      !get_place(env, arguments[1], start, length, &place)) {
    return NULL;
  }
  /* It would be the offset of the descriptor. */
  if (offset < 0) return make_int(env, -EINVAL);
  struct iovec part = {.iov_base = place, .iov_len = length < MAX_TRANSFER ? length : MAX_TRANSFER};
  ssize_t result;
  RETRY(result, read_at_once(fd, &part, offset));
  return make_int(env, or_errno(result));
}

/* One write of several. */
struct piece {
  const uint8_t *bytes;
  size_t length;
  int64_t offset;
  int32_t *result;
};
_Static_assert(offsetof(struct async_work, path) % _Alignof(struct piece) == 0, "pieces stand in path");

static void write_pieces(struct async_work *work) {
  const struct piece *pieces = (const struct piece *)work->path;
  for (int64_t i = 0; i < work->length; i++) {
    const struct piece *piece = &pieces[i];
    ssize_t result;
    RETRY(result, pwrite(work->fd, piece->bytes, piece->length, piece->offset));
    *piece->result = (int32_t)or_errno(result);
  }
}

/*
 * Takes the places of the pieces, and keeps the buffers and the results in a list of its own: what the
 * caller does to its array is then of no matter. No JavaScript runs after the first pointer is taken.
 */
static bool take_pieces(napi_env env, const napi_value *arguments, uint32_t count, struct async_work *work) {
  struct piece *pieces = (struct piece *)work->path;
  napi_value buffers[MAX_PIECES], kept;
  void *ranges, *offsets, *results;
  uint8_t *place;
  if (napi_create_array_with_length(env, count + 1, &kept) != napi_ok) return false;
  for (uint32_t i = 0; i < count; i++) {
    if (napi_get_element(env, arguments[1], i, &buffers[i]) != napi_ok ||
        napi_set_element(env, kept, i, buffers[i]) != napi_ok) {
      return false;
    }
  }
  if (napi_set_element(env, kept, count, arguments[4]) != napi_ok ||
      !get_elements(env, arguments[2], napi_uint32_array, 2 * (uint64_t)count, &ranges) ||
      !get_elements(env, arguments[3], napi_bigint64_array, count, &offsets) ||
      !get_elements(env, arguments[4], napi_int32_array, count, &results)) {
    return false;
  }
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t *range = (const uint32_t *)ranges + 2 * (size_t)i;
    if (!get_place(env, buffers[i], range[0], range[1], &place)) return false;
    pieces[i] = (struct piece){.bytes = place,
                               .length = range[1] < MAX_TRANSFER ? range[1] : MAX_TRANSFER,
                               .offset = ((const int64_t *)offsets)[i],
                               .result = (int32_t *)results + i};
  }
  return napi_create_reference(env, kept, 1, &work->held) == napi_ok;
}

/* pwrites(fd, buffers, ranges, offsets, results): Promise */
static napi_value write_many(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  int32_t fd;
  uint32_t count;
  bool is_array = false;
  if (!get_arguments(env, info, 5, arguments, NULL) || !get_int(env, arguments[0], &fd)) return NULL;
  if (napi_is_array(env, arguments[1], &is_array) != napi_ok || !is_array) {
    napi_throw_type_error(env, NULL, "an array of Uint8Arrays is expected");
    return NULL;
  }
  if (napi_get_array_length(env, arguments[1], &count) != napi_ok) return NULL;
  if (count < 1 || count > MAX_PIECES) {
    napi_throw_range_error(env, NULL, "1 to 1024 pieces are expected");
    return NULL;
  }
  struct async_work *work = new_work(env, count * sizeof(struct piece));
  if (work == NULL) return NULL;
  work->fd = fd;
  work->length = count;
  if (!take_pieces(env, arguments, count, work)) {
    free_work(env, work);
    return NULL;
  }
  return start_work(env, work, "pwrites", write_pieces);
}

bool define_file(napi_env env, napi_value exports) {
  return define(env, exports, "fallocate", fallocate_call) &&
         define(env, exports, "lseek", lseek_call) && define(env, exports, "truncate", truncate_call) &&
         define(env, exports, "preadNow", read_now) && define(env, exports, "pwrites", write_many) &&
         define(env, exports, "lockShared", lock_shared_call) &&
         define(env, exports, "isLocked", is_locked_call);
}
