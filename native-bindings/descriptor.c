/* Descriptors as such: closed, copied, their flags, and received from another process. */

#include "common.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds that receiveDescriptor waits for the other side, and how many of them at a time. */
#define DESCRIPTOR_DEADLINE 60000
#define DESCRIPTOR_SLICE 100
/* One is expected. What does not fit in the message is dropped by the kernel, open in nobody. */
#define MOST_DESCRIPTORS 16

static bool get_fd(napi_env env, napi_callback_info info, int32_t *fd) {
  napi_value arguments[1];
  return get_arguments(env, info, 1, arguments, NULL) && get_int(env, arguments[0], fd);
}

/* close(fd) */
static napi_value close_descriptor(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  /* Never again after EINTR: on Linux the descriptor is closed all the same. */
  return make_int(env, or_errno(close(fd)));
}

/* dup(fd) */
static napi_value duplicate(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  return make_int(env, or_errno(fcntl(fd, F_DUPFD_CLOEXEC, 0)));
}

/* dup2(fd, target) */
static napi_value duplicate_to(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  int32_t fd, target;
  int result;
  if (!get_arguments(env, info, 2, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_int(env, arguments[1], &target)) {
    return NULL;
  }
  /* EBUSY: another thread is just opening one. */
  do {
    result = dup2(fd, target);
  } while (result < 0 && (errno == EINTR || errno == EBUSY));
  return make_int(env, or_errno(result));
}

/* Sets or clears one flag: get and set are F_GETFL and F_SETFL, or those for descriptor flags. */
static napi_value set_flag(napi_env env, napi_callback_info info, int get, int set, int flag) {
  napi_value arguments[2];
  int32_t fd;
  bool on;
  if (!get_arguments(env, info, 2, arguments, NULL) || !get_int(env, arguments[0], &fd) ||
      !get_bool(env, arguments[1], &on)) {
    return NULL;
  }
  int flags = fcntl(fd, get);
  if (flags < 0) return make_int(env, or_errno(flags));
  return make_int(env, or_errno(fcntl(fd, set, on ? flags | flag : flags & ~flag)));
}

static napi_value set_nonblocking(napi_env env, napi_callback_info info) {
  return set_flag(env, info, F_GETFL, F_SETFL, O_NONBLOCK);
}

static napi_value set_close_on_exec(napi_env env, napi_callback_info info) {
  return set_flag(env, info, F_GETFD, F_SETFD, FD_CLOEXEC);
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

static int64_t receive_message(int fd) {
  char byte;
  union {
    struct cmsghdr header; /* for its alignment */
    char bytes[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t result;
  RETRY(result, recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
  if (result < 0) return -(int64_t)errno;
  if (result == 0) return -ENODATA;
  return take_descriptor(&message);
}

static int64_t milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Waits for a slice of the time. A process or thread that ends has to wait for the thread pool, and
 * should not for the other side.
 */
static void receive(struct async_work *work) {
  int64_t left = work->deadline - milliseconds();
  struct pollfd socket = {.fd = work->fd, .events = POLLIN};
  int ready = poll(&socket, 1, left < DESCRIPTOR_SLICE ? (left > 0 ? (int)left : 0) : DESCRIPTOR_SLICE);
  work->again = false;
  if (ready > 0) {
    work->result = receive_message(work->fd);
    /* Another reader of the socket was faster. */
    work->again = work->result == -EAGAIN;
  } else if (ready == 0) {
    work->result = -ETIMEDOUT;
    work->again = left > DESCRIPTOR_SLICE;
  } else {
    work->result = -(int64_t)errno;
    work->again = errno == EINTR;
  }
}

/* receiveDescriptor(fd): Promise */
static napi_value receive_descriptor(napi_env env, napi_callback_info info) {
  int32_t fd;
  if (!get_fd(env, info, &fd)) return NULL;
  struct async_work *work = new_work(env, 0);
  if (work == NULL) return NULL;
  work->fd = fd;
  /* poll(2) passes over a negative descriptor, and waits. */
  work->problem = fd < 0 ? EBADF : 0;
  work->deadline = milliseconds() + DESCRIPTOR_DEADLINE;
  work->gives_ownership = true;
  return start_work(env, work, "receiveDescriptor", receive);
}

bool define_descriptor(napi_env env, napi_value exports) {
  return define(env, exports, "close", close_descriptor) && define(env, exports, "dup", duplicate) &&
         define(env, exports, "dup2", duplicate_to) &&
         define(env, exports, "setNonblocking", set_nonblocking) &&
         define(env, exports, "setCloseOnExec", set_close_on_exec) &&
         define(env, exports, "receiveDescriptor", receive_descriptor);
}
