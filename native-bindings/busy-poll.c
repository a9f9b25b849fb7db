/*
 * busyPoll: an event loop that looks for events for a moment before it sleeps.
 *
 * A thread that sleeps has to be woken, which costs whoever wakes it an interrupt of another
 * processor, and the sleeper the way out of its idle state: more than a request and its answer take,
 * where a server on the same machine works on one request at a time. On a virtual machine, where both
 * need the hypervisor, it is most of the time that passes.
 *
 * As KVM does it with its halt_poll_ns (Documentation/virt/kvm/halt-polling.rst of the kernel), what
 * has been decides: after a short sleep the next one is put off, after a long one it is not. So
 * nothing is spent on a server that is far away, or while there is nothing to do.
 */

#include "common.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <uv.h>

/*
 * Nanoseconds. A sleep that took so long would have been spared by looking for events; to wake up is a
 * part of it.
 */
#define SHORT_SLEEP 150000u
/*
 * Nanoseconds between two looks from which on others have had the processor meanwhile, for work of their
 * own: a server that answers a request here, as it may on few processors, takes less. They need it, and a
 * sleeper gets it back sooner than one who yields it: nothing is put off for a while then, which gets
 * longer as long as that happens.
 */
#define TAKEN_AWAY 300000u
#define FIRST_PAUSE 4000000u
#define LONGEST_PAUSE 1024000000u
/* After so many sleeps put off in peace it starts anew. */
#define PEACE 256

struct busy_poll {
  uv_prepare_t before; /* the loop sleeps, if there is nothing */
  uv_check_t after;
  napi_async_cleanup_hook_handle cleanup;
  int open;         /* handles that libuv has */
  uint64_t limit;   /* nanoseconds */
  uint64_t asleep;  /* since when; 0 where the loop was not about to sleep */
  uint64_t resume;  /* not before that time */
  uint64_t pause;   /* the next one, in nanoseconds */
  int peace;        /* sleeps put off since the last one */
  bool worth_it;    /* the last sleep was short */
  const int32_t *in_flight;
  int32_t most;
  napi_ref held;    /* keeps in_flight alive */
};

static bool has_events(const uv_loop_t *loop) {
  struct pollfd epoll = {.fd = uv_backend_fd(loop), .events = POLLIN};
  return poll(&epoll, 1, 0) > 0;
}

/* Until there are events or the time is up. */
static void look(struct busy_poll *state, const uv_loop_t *loop, uint64_t now) {
  const uint64_t end = now + state->limit;
  while (!has_events(loop)) {
    /* The one that we wait for may need this very processor. */
    sched_yield();
    uint64_t then = now;
    now = uv_hrtime();
    if (now - then >= TAKEN_AWAY) {
      state->resume = now + state->pause;
      state->pause = state->pause < LONGEST_PAUSE ? 2 * state->pause : LONGEST_PAUSE;
      state->peace = 0;
      return;
    }
    if (now >= end) break;
  }
  if (++state->peace == PEACE) state->pause = FIRST_PAUSE;
}

static void before_sleep(uv_prepare_t *handle) {
  struct busy_poll *state = handle->data;
  state->asleep = 0;
  if (uv_backend_timeout(handle->loop) == 0) return;
  state->asleep = uv_hrtime();
  if (state->worth_it && *state->in_flight <= state->most && state->asleep >= state->resume) {
    look(state, handle->loop, state->asleep);
  }
}

static void after_sleep(uv_check_t *handle) {
  struct busy_poll *state = handle->data;
  if (state->asleep != 0) state->worth_it = uv_hrtime() - state->asleep <= SHORT_SLEEP;
}

static void on_closed(uv_handle_t *handle) {
  struct busy_poll *state = handle->data;
  if (--state->open > 0) return;
  napi_async_cleanup_hook_handle cleanup = state->cleanup;
  free(state);
  if (cleanup != NULL) napi_remove_async_cleanup_hook(cleanup);
}

static void close_handles(struct busy_poll *state) {
  uv_close((uv_handle_t *)&state->before, on_closed);
  uv_close((uv_handle_t *)&state->after, on_closed);
}

static void on_cleanup(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  close_handles(data);
}

/* busyPoll(microseconds, inFlight, most) */
static napi_value busy_poll(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  uint32_t microseconds;
  int32_t most;
  void *in_flight;
  uv_loop_t *loop;
  if (!get_arguments(env, info, 3, arguments, NULL) ||
      !get_uint(env, arguments[0], &microseconds) || !get_int(env, arguments[2], &most) ||
      !get_elements(env, arguments[1], napi_int32_array, 1, &in_flight)) {
    return NULL;
  }
  struct busy_poll *state = calloc(1, sizeof *state);
  if (state == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok ||
      napi_create_reference(env, arguments[1], 1, &state->held) != napi_ok) {
    free(state);
    return make_int(env, -ENOMEM);
  }
  state->in_flight = in_flight;
  state->most = most;
  state->pause = FIRST_PAUSE;
  state->limit = (uint64_t)microseconds * 1000;
  state->before.data = state;
  state->after.data = state;
  state->open = 2;
  uv_prepare_init(loop, &state->before);
  uv_check_init(loop, &state->after);
  if (napi_add_async_cleanup_hook(env, on_cleanup, state, &state->cleanup) != napi_ok) {
    close_handles(state);
    return make_int(env, -ENOMEM);
  }
  uv_prepare_start(&state->before, before_sleep);
  uv_check_start(&state->after, after_sleep);
  /* They keep no loop alive that has nothing else to do. */
  uv_unref((uv_handle_t *)&state->before);
  uv_unref((uv_handle_t *)&state->after);
  return make_int(env, 0);
}

bool define_busy_poll(napi_env env, napi_value exports) {
  return define(env, exports, "busyPoll", busy_poll);
}
