/* Mounting. */

#include "common.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mount.h>

/* openFuse() */
static napi_value open_fuse(napi_env env, napi_callback_info info) {
  (void)info;
  int fd;
  RETRY(fd, open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  return make_int(env, or_errno(fd));
}

/*
 * mount(source, target, type, flags, data). Not off the event loop: of a FUSE mount the kernel asks
 * nothing before the call has returned.
 */
static napi_value mount_call(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  /* The kernel takes a page of data, and a path of type and source. */
  char source[PATH_MAX], target[PATH_MAX], type[PATH_MAX], data[4096];
  int problems[4];
  uint32_t flags;
  if (!get_arguments(env, info, 5, arguments, NULL) ||
      !get_text(env, arguments[0], source, sizeof source, &problems[0]) ||
      !get_text(env, arguments[1], target, sizeof target, &problems[1]) ||
      !get_text(env, arguments[2], type, sizeof type, &problems[2]) ||
      !get_uint(env, arguments[3], &flags) ||
      !get_text(env, arguments[4], data, sizeof data, &problems[3])) {
    return NULL;
  }
  for (size_t i = 0; i < sizeof problems / sizeof problems[0]; i++) {
    if (problems[i] != 0) return make_int(env, -problems[i]);
  }
  int result;
  RETRY(result, mount(source, target, type, flags, data));
  return make_int(env, or_errno(result));
}

static void unmount(struct async_work *work) {
  int result;
  RETRY(result, umount2(work->path, work->flags));
  work->result = or_errno(result);
}

/* umount(target, flags): Promise */
static napi_value umount_call(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct async_work *work = new_work(env, PATH_MAX);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_text(env, arguments[0], work->path, PATH_MAX, &work->problem) ||
      !get_int(env, arguments[1], &work->flags)) {
    free(work);
    return NULL;
  }
  return start_work(env, work, "umount", unmount);
}

bool define_fuse(napi_env env, napi_value exports) {
  return define(env, exports, "openFuse", open_fuse) && define(env, exports, "mount", mount_call) &&
         define(env, exports, "umount", umount_call);
}
