/* Mounting. */

#include "common.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

/* openFuse() */
static napi_value open_fuse(napi_env env, napi_callback_info info) {
  (void)info;
  int fd;
  RETRY(fd, open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  return make_int(env, or_errno(fd));
}

/* mount(source, target, type, flags, data) */
static napi_value mount_call(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  char source[4096], target[4096], type[64], data[4096];
  uint32_t flags;
  if (!get_arguments(env, info, 5, arguments, NULL) ||
      !get_string(env, arguments[0], source, sizeof source, NULL) ||
      !get_string(env, arguments[1], target, sizeof target, NULL) ||
      !get_string(env, arguments[2], type, sizeof type, NULL) ||
      !get_uint(env, arguments[3], &flags) ||
      !get_string(env, arguments[4], data, sizeof data, NULL)) {
    return NULL;
  }
  return make_int(env, or_errno(mount(source, target, type, flags, data)));
}

static void unmount(struct async_work *work) {
  work->result = or_errno(umount2(work->path, work->flags));
}

/* umount(target, flags): Promise */
static napi_value umount_call(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct async_work *work = new_work(env);
  if (work == NULL) return NULL;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_string(env, arguments[0], work->path, sizeof work->path, NULL) ||
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
