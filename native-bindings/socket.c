/* Sockets: listening, connecting, accepting, and passing descriptors. */

#include "common.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Milliseconds that receiveDescriptor waits for the other side. */
#define DESCRIPTOR_DEADLINE 60000

struct address {
  struct sockaddr_storage storage;
  socklen_t length;
};

static int64_t close_and_fail(int fd) {
  int saved = errno;
  close(fd);
  return -(int64_t)saved;
}

/* A path, or an abstract name that starts with a NUL and ends where the string does. */
static bool get_unix_address(napi_env env, napi_value value, struct address *address, int *problem) {
  struct sockaddr_un *name = (struct sockaddr_un *)&address->storage;
  char path[4096];
  size_t length;
  if (!get_string(env, value, path, sizeof path, &length)) return false;
  memset(address, 0, sizeof *address);
  name->sun_family = AF_UNIX;
  bool abstract = length > 0 && path[0] == '\0';
  *problem = 0;
  if (length == 0 || (!abstract && memchr(path, '\0', length) != NULL)) {
    *problem = EINVAL;
  } else if (length + (abstract ? 0 : 1) > sizeof name->sun_path) {
    *problem = ENAMETOOLONG;
  } else {
    memcpy(name->sun_path, path, length);
    address->length =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (abstract ? 0 : 1));
  }
  return true;
}

/* A numeric IPv4 or IPv6 address, the latter with its %scope if it has one. */
static bool get_tcp_address(napi_env env, napi_value host, napi_value port_value,
                            struct address *address, int *problem) {
  char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
  uint32_t port;
  if (!get_string(env, host, text, sizeof text, NULL) || !get_uint(env, port_value, &port)) {
    return false;
  }
  memset(address, 0, sizeof *address);
  *problem = 0;
  struct sockaddr_in *four = (struct sockaddr_in *)&address->storage;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->storage;
  if (port > UINT16_MAX) {
    *problem = EINVAL;
    return true;
  }
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    address->length = sizeof *four;
    return true;
  }
  char *scope = strchr(text, '%');
  if (scope != NULL) *scope++ = '\0';
  if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1) {
    *problem = EINVAL;
    return true;
  }
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)port);
  address->length = sizeof *six;
  if (scope != NULL) {
    six->sin6_scope_id = if_nametoindex(scope);
    if (six->sin6_scope_id == 0) six->sin6_scope_id = (uint32_t)strtoul(scope, NULL, 10);
    if (six->sin6_scope_id == 0) *problem = EINVAL;
  }
  return true;
}

static int make_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int64_t listen_on(const struct address *address, int32_t backlog) {
  const struct sockaddr *name = (const struct sockaddr *)&address->storage;
  const int on = 1;
  int fd = make_socket(name->sa_family);
  if (fd < 0) return -(int64_t)errno;
  if (name->sa_family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  /* One socket for each family, so that both can be had on one port. */
  if (name->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd, name, address->length) < 0 || listen(fd, backlog) < 0) return close_and_fail(fd);
  return fd;
}

static int64_t connect_to(const struct address *address) {
  const struct sockaddr *name = (const struct sockaddr *)&address->storage;
  int fd = make_socket(name->sa_family);
  if (fd < 0) return -(int64_t)errno;
  if (name->sa_family != AF_UNIX) no_delay(fd);
  int result;
  RETRY(result, connect(fd, name, address->length));
  if (result < 0 && errno != EINPROGRESS) return close_and_fail(fd);
  return fd;
}

/* unixListen(path, backlog) */
static napi_value unix_listen(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct address address;
  int problem;
  int32_t backlog;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_unix_address(env, arguments[0], &address, &problem) ||
      !get_int(env, arguments[1], &backlog)) {
    return NULL;
  }
  return make_int(env, problem != 0 ? -problem : listen_on(&address, backlog));
}

/* unixConnect(path) */
static napi_value unix_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  struct address address;
  int problem;
  if (!get_arguments(env, info, 1, arguments, NULL) ||
      !get_unix_address(env, arguments[0], &address, &problem)) {
    return NULL;
  }
  return make_int(env, problem != 0 ? -problem : connect_to(&address));
}

/* tcpListen(address, port, backlog) */
static napi_value tcp_listen(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct address address;
  int problem;
  int32_t backlog;
  if (!get_arguments(env, info, 3, arguments, NULL) ||
      !get_tcp_address(env, arguments[0], arguments[1], &address, &problem) ||
      !get_int(env, arguments[2], &backlog)) {
    return NULL;
  }
  return make_int(env, problem != 0 ? -problem : listen_on(&address, backlog));
}

/* tcpConnect(address, port) */
static napi_value tcp_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct address address;
  int problem;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_tcp_address(env, arguments[0], arguments[1], &address, &problem)) {
    return NULL;
  }
  return make_int(env, problem != 0 ? -problem : connect_to(&address));
}

static bool get_fd(napi_env env, napi_callback_info info, int32_t *fd) {
  napi_value arguments[1];
  return get_arguments(env, info, 1, arguments, NULL) && get_int(env, arguments[0], fd);
}

/* tcpPort(fd) */
static napi_value tcp_port(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  struct sockaddr_storage name;
  socklen_t length = sizeof name;
  if (getsockname(fd, (struct sockaddr *)&name, &length) < 0) return make_int(env, -errno);
  switch (name.ss_family) {
    case AF_INET:
      return make_int(env, ntohs(((struct sockaddr_in *)&name)->sin_port));
    case AF_INET6:
      return make_int(env, ntohs(((struct sockaddr_in6 *)&name)->sin6_port));
    default:
      return make_int(env, -EAFNOSUPPORT);
  }
}

/* socketError(fd) */
static napi_value socket_error(napi_env env, napi_callback_info info) {
  int32_t fd;
  int error = 0;
  socklen_t length = sizeof error;
  if (!get_fd(env, info, &fd)) return NULL;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
  return make_int(env, -error);
}

/* accept(fd) */
static napi_value accept_next(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  struct sockaddr_storage peer;
  socklen_t length = sizeof peer;
  int result;
  RETRY(result, accept4(fd, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (result >= 0 && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) no_delay(result);
  return make_int(env, or_errno(result));
}

/* socketpair(out) */
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  napi_typedarray_type type;
  size_t elements;
  void *data;
  int pair[2];
  if (!get_arguments(env, info, 1, arguments, NULL)) return NULL;
  if (napi_get_typedarray_info(env, arguments[0], &type, &elements, &data, NULL, NULL) != napi_ok ||
      type != napi_int32_array || elements < 2) {
    napi_throw_type_error(env, NULL, "an Int32Array of 2 is expected");
    return NULL;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return make_int(env, -errno);
  ((int32_t *)data)[0] = pair[0];
  ((int32_t *)data)[1] = pair[1];
  return make_int(env, 0);
}

/* The first descriptor of a message; any further ones are closed. */
static int take_descriptor(struct msghdr *message) {
  int found = -EPROTO;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
       part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      if (found < 0) {
        found = fd;
      } else {
        close(fd);
      }
    }
  }
  return found;
}

static void receive(struct async_work *work) {
  struct pollfd poll_for = {.fd = work->fd, .events = POLLIN};
  ssize_t result;
  RETRY(result, poll(&poll_for, 1, DESCRIPTOR_DEADLINE));
  if (result <= 0) {
    work->result = result == 0 ? -ETIMEDOUT : -(int64_t)errno;
    return;
  }
  char byte;
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(16 * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  RETRY(result, recvmsg(work->fd, &message, MSG_CMSG_CLOEXEC));
  if (result < 0) {
    work->result = -(int64_t)errno;
  } else if (result == 0) {
    work->result = -ENODATA;
  } else {
    work->result = take_descriptor(&message);
  }
}

/* receiveDescriptor(fd): Promise */
static napi_value receive_descriptor(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  struct async_work *work = new_work(env);
  if (work == NULL) return NULL;
  work->fd = fd;
  return start_work(env, work, "receiveDescriptor", receive);
}

bool define_socket(napi_env env, napi_value exports) {
  return define(env, exports, "unixListen", unix_listen) &&
         define(env, exports, "unixConnect", unix_connect) &&
         define(env, exports, "tcpListen", tcp_listen) &&
         define(env, exports, "tcpConnect", tcp_connect) &&
         define(env, exports, "tcpPort", tcp_port) &&
         define(env, exports, "socketError", socket_error) &&
         define(env, exports, "accept", accept_next) &&
         define(env, exports, "socketpair", socket_pair) &&
         define(env, exports, "receiveDescriptor", receive_descriptor);
}
