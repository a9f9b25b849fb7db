/* Stream sockets: listening, connecting, accepting. */

#include "address.h"
#include "common.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* It needs what sys/socket.h defines. */
#include <linux/vm_sockets.h>

static int64_t close_and_fail(int fd) {
  int saved = errno;
  close(fd);
  return -(int64_t)saved;
}

bool get_unix_address(napi_env env, napi_value value, struct address *address, int *problem) {
  struct sockaddr_un *name = (struct sockaddr_un *)&address->storage;
  char path[sizeof name->sun_path + 1];
  size_t length;
  if (!get_bytes(env, value, path, sizeof path, &length, problem)) return false;
  memset(address, 0, sizeof *address);
  if (*problem != 0) return true;
  name->sun_family = AF_UNIX;
  bool abstract = length > 0 && path[0] == '\0';
  /* A name fills the field to its last byte; a path has a NUL behind it. */
  size_t filled = length + (abstract ? 0 : 1);
  if (length == 0 || (!abstract && memchr(path, '\0', length) != NULL)) {
    *problem = EINVAL;
  } else if (filled > sizeof name->sun_path) {
    *problem = ENAMETOOLONG;
  } else {
    memcpy(name->sun_path, path, length);
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + filled);
  }
  return true;
}

/* An interface by its name or its number; 0 is none. */
static uint32_t scope_id(const char *text) {
  uint32_t id = if_nametoindex(text);
  if (id != 0) return id;
  uint64_t number = 0;
  for (const char *at = text; *at != '\0'; at++) {
    if (*at < '0' || *at > '9') return 0;
    number = number * 10 + (uint64_t)(*at - '0');
    if (number > UINT32_MAX) return 0;
  }
  return (uint32_t)number;
}

/* A numeric IPv4 or IPv6 address, the latter with its %scope if it has one. */
static bool get_tcp_address(napi_env env, napi_value host, napi_value port_value,
                            struct address *address, int *problem) {
  char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
  uint32_t port;
  if (!get_text(env, host, text, sizeof text, problem) || !get_uint(env, port_value, &port)) {
    return false;
  }
  memset(address, 0, sizeof *address);
  struct sockaddr_in *four = (struct sockaddr_in *)&address->storage;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->storage;
  if (*problem != 0 || port > UINT16_MAX) {
    /* Too long is no address either. */
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
    six->sin6_scope_id = scope_id(scope);
    if (six->sin6_scope_id == 0) *problem = EINVAL;
  }
  return true;
}

/* Both are 32 bits wide, and the highest of each stands for any. */
static bool get_vsock_address(napi_env env, napi_value cid_value, napi_value port_value,
                              struct address *address) {
  uint32_t cid, port;
  if (!get_uint(env, cid_value, &cid) || !get_uint(env, port_value, &port)) return false;
  memset(address, 0, sizeof *address);
  struct sockaddr_vm *name = (struct sockaddr_vm *)&address->storage;
  name->svm_family = AF_VSOCK;
  name->svm_cid = cid;
  name->svm_port = port;
  address->length = sizeof *name;
  return true;
}

static bool is_tcp(sa_family_t family) { return family == AF_INET || family == AF_INET6; }

static int make_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/*
 * Requests leave at once, and a peer whose machine is gone without a word is noticed: after a minute
 * while nothing is under way, and as soon when data of ours is not acknowledged.
 */
static void tune_tcp(int fd) {
  const int on = 1, idle = 30, interval = 10, probes = 3, unacknowledged = 60000;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged, sizeof unacknowledged);
}

static int64_t listen_on(const struct address *address, int32_t backlog) {
  const struct sockaddr *name = (const struct sockaddr *)&address->storage;
  const int on = 1;
  int fd = make_socket(name->sa_family);
  if (fd < 0) return -(int64_t)errno;
  if (is_tcp(name->sa_family) &&
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) {
    return close_and_fail(fd);
  }
  /* One socket for each family, so that both can be had on one port. */
  if (name->sa_family == AF_INET6 &&
      setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) {
    return close_and_fail(fd);
  }
  if (bind(fd, name, address->length) < 0 || listen(fd, backlog) < 0) return close_and_fail(fd);
  return fd;
}

static int64_t connect_to(const struct address *address) {
  const struct sockaddr *name = (const struct sockaddr *)&address->storage;
  int fd = make_socket(name->sa_family);
  if (fd < 0) return -(int64_t)errno;
  if (is_tcp(name->sa_family)) tune_tcp(fd);
  /* It waits for nothing, so that no signal interrupts it. */
  if (connect(fd, name, address->length) < 0 && errno != EINPROGRESS) return close_and_fail(fd);
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

/* vsockListen(cid, port, backlog) */
static napi_value vsock_listen(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  struct address address;
  int32_t backlog;
  if (!get_arguments(env, info, 3, arguments, NULL) ||
      !get_vsock_address(env, arguments[0], arguments[1], &address) ||
      !get_int(env, arguments[2], &backlog)) {
    return NULL;
  }
  return make_int(env, listen_on(&address, backlog));
}

/* vsockConnect(cid, port) */
static napi_value vsock_connect(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  struct address address;
  if (!get_arguments(env, info, 2, arguments, NULL) ||
      !get_vsock_address(env, arguments[0], arguments[1], &address)) {
    return NULL;
  }
  return make_int(env, connect_to(&address));
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

/* resetOnClose(fd) */
static napi_value reset_on_close(napi_env env, napi_callback_info info) {
  int32_t fd;
  struct linger none = {.l_onoff = 1, .l_linger = 0};
  if (!get_fd(env, info, &fd)) return NULL;
  int result = setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  return make_int(env, result < 0 ? -errno : 0);
}

/* accept(fd) */
static napi_value accept_next(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
  socklen_t length = sizeof peer;
  int result;
  RETRY(result, accept4(fd, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (result >= 0 && is_tcp(peer.ss_family)) tune_tcp(result);
  return make_int(env, or_errno(result));
}

/* socketpair(out) */
static napi_value socket_pair(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  void *data;
  int pair[2];
  if (!get_arguments(env, info, 1, arguments, NULL) ||
      !get_elements(env, arguments[0], napi_int32_array, 2, &data)) {
    return NULL;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return make_int(env, -errno);
  ((int32_t *)data)[0] = pair[0];
  ((int32_t *)data)[1] = pair[1];
  return make_int(env, 0);
}

/* peerCredentials(fd, out) */
static napi_value peer_credentials(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t fd;
  void *data;
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (!get_arguments(env, info, 2, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_elements(env, arguments[1], napi_int32_array, 2, &data)) {
    return NULL;
  }
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return make_int(env, -errno);
  ((int32_t *)data)[0] = (int32_t)peer.pid;
  ((int32_t *)data)[1] = (int32_t)peer.uid;
  return make_int(env, 0);
}

bool define_socket(napi_env env, napi_value exports) {
  return define(env, exports, "unixListen", unix_listen) &&
         define(env, exports, "unixConnect", unix_connect) &&
         define(env, exports, "tcpListen", tcp_listen) &&
         define(env, exports, "tcpConnect", tcp_connect) &&
         define(env, exports, "vsockListen", vsock_listen) &&
         define(env, exports, "vsockConnect", vsock_connect) &&
         define(env, exports, "tcpPort", tcp_port) &&
         define(env, exports, "socketError", socket_error) &&
         define(env, exports, "resetOnClose", reset_on_close) &&
         define(env, exports, "accept", accept_next) &&
         define(env, exports, "socketpair", socket_pair) &&
         define(env, exports, "peerCredentials", peer_credentials);
}
