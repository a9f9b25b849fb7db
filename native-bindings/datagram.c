/* Unix datagram sockets: of them only what a sender needs. */

#include "address.h"
#include "common.h"

/* unixDatagram() */
static napi_value unix_datagram(napi_env env, napi_callback_info info) {
  (void)info;
  return make_int(env, or_errno(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
}

/* sendTo(fd, path, bytes, start, length) */
static napi_value send_to(napi_env env, napi_callback_info info) {
  napi_value arguments[5];
  struct address address;
  int32_t fd;
  uint32_t start, length;
  uint8_t *place;
  int problem;
  if (!get_arguments(env, info, 5, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_unix_address(env, arguments[1], &address, &problem) ||
      !get_uint(env, arguments[3], &start) || !get_uint(env, arguments[4], &length) ||
      !get_place(env, arguments[2], start, length, &place)) {
    return NULL;
  }
  if (problem != 0) return make_int(env, -problem);
  ssize_t result;
  RETRY(result, sendto(fd, place, length, MSG_NOSIGNAL, (const struct sockaddr *)&address.storage,
                       address.length));
  return make_int(env, or_errno(result));
}

bool define_datagram(napi_env env, napi_value exports) {
  return define(env, exports, "unixDatagram", unix_datagram) &&
         define(env, exports, "sendTo", send_to);
}
