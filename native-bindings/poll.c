/* PollWatcher: a descriptor watched by the event loop of the thread that the addon was loaded in. */

#include "common.h"

#include <stdlib.h>
#include <uv.h>

/*
 * Freed when both the JavaScript object and libuv have let go of it. Only a started watcher is kept
 * alive from here: the object, by a strong reference, and through it the callback, which is one of its
 * properties. The callback mostly knows the owner of the watcher, so that a strong reference to it
 * would keep every forgotten watcher for ever.
 */
struct watcher {
  uv_poll_t poll;
  napi_env env;
  napi_ref self;     /* strong while started */
  napi_ref callback; /* always weak */
  napi_async_context context;
  napi_async_cleanup_hook_handle cleanup;
  int events;  /* watched for; 0 while stopped */
  bool closing; /* uv_close was called */
  bool in_loop; /* until it has called back */
  bool wrapped; /* the object is there */
};

static void free_unused(struct watcher *watcher) {
  if (!watcher->in_loop && !watcher->wrapped) free(watcher);
}

static void set_events(struct watcher *watcher, int events) {
  uint32_t count;
  if (watcher->events == 0 && events != 0) {
    napi_reference_ref(watcher->env, watcher->self, &count);
  } else if (watcher->events != 0 && events == 0) {
    napi_reference_unref(watcher->env, watcher->self, &count);
  }
  watcher->events = events;
}

static void halt(struct watcher *watcher) {
  uv_poll_stop(&watcher->poll);
  set_events(watcher, 0);
}

static void on_closed(uv_handle_t *handle) {
  struct watcher *watcher = handle->data;
  napi_async_cleanup_hook_handle cleanup = watcher->cleanup;
  watcher->in_loop = false;
  free_unused(watcher);
  /* Where the thread ends, Node waits for this. */
  if (cleanup != NULL) napi_remove_async_cleanup_hook(cleanup);
}

static void close_watcher(struct watcher *watcher) {
  if (watcher->closing) return;
  watcher->closing = true;
  halt(watcher);
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
}

/* The thread ends. Nothing more to do where the watcher is being closed: on_closed will come. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  close_watcher(data);
}

static void delete_references(struct watcher *watcher) {
  if (watcher->self != NULL) napi_delete_reference(watcher->env, watcher->self);
  if (watcher->callback != NULL) napi_delete_reference(watcher->env, watcher->callback);
  if (watcher->context != NULL) napi_async_destroy(watcher->env, watcher->context);
}

/* The object was collected, stopped or closed as it was, or the thread ends. */
static void on_collected(napi_env env, void *data, void *hint) {
  (void)env;
  (void)hint;
  struct watcher *watcher = data;
  if (watcher->in_loop) close_watcher(watcher);
  delete_references(watcher);
  watcher->wrapped = false;
  free_unused(watcher);
}

static void call_back(struct watcher *watcher, int status, int events) {
  napi_env env = watcher->env;
  napi_value self, callback, error;
  bool thrown = false;
  if (napi_get_reference_value(env, watcher->self, &self) != napi_ok || self == NULL ||
      napi_get_reference_value(env, watcher->callback, &callback) != napi_ok || callback == NULL) {
    return;
  }
  /* libuv has stopped it, as the error would come again at once. */
  if (status < 0) set_events(watcher, 0);
  napi_value arguments[2] = {make_int(env, status), make_int(env, events)};
  /* Also runs what waits for the end of the callback: process.nextTick and microtasks. */
  if (napi_make_callback(env, watcher->context, self, callback, 2, arguments, NULL) == napi_ok) return;
  if (napi_is_exception_pending(env, &thrown) == napi_ok && thrown) {
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  } else if (!watcher->closing) {
    /* The thread ends, and JavaScript runs no more: what nobody reads would be told for ever. */
    halt(watcher);
  }
}

static void on_events(uv_poll_t *poll, int status, int events) {
  struct watcher *watcher = poll->data;
  napi_handle_scope scope;
  if (napi_open_handle_scope(watcher->env, &scope) != napi_ok) return;
  napi_env env = watcher->env;
  call_back(watcher, status, events);
  napi_close_handle_scope(env, scope);
}

/* Makes all but the wrap. What was made when it fails is found in the watcher. */
static bool make_references(struct watcher *watcher, napi_value self, napi_value callback) {
  napi_env env = watcher->env;
  napi_value name;
  const napi_property_descriptor property = {
      .utf8name = "callback", .value = callback, .attributes = napi_default};
  return napi_create_string_utf8(env, "PollWatcher", NAPI_AUTO_LENGTH, &name) == napi_ok &&
         napi_async_init(env, self, name, &watcher->context) == napi_ok &&
         napi_define_properties(env, self, 1, &property) == napi_ok &&
         napi_create_reference(env, callback, 0, &watcher->callback) == napi_ok &&
         napi_add_async_cleanup_hook(env, on_cleanup, watcher, &watcher->cleanup) == napi_ok;
}

/* new PollWatcher(fd, callback) */
static napi_value construct(napi_env env, napi_callback_info info) {
  napi_value arguments[2], self, target = NULL;
  int32_t fd;
  napi_valuetype type;
  /* Called as a function, this could be anything. */
  if (napi_get_new_target(env, info, &target) != napi_ok || target == NULL) {
    napi_throw_type_error(env, NULL, "PollWatcher is made with new");
    return NULL;
  }
  if (!get_arguments(env, info, 2, arguments, &self) || !get_int(env, arguments[0], &fd)) return NULL;
  if (napi_typeof(env, arguments[1], &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, NULL, "a function is expected");
    return NULL;
  }
  uv_loop_t *loop;
  struct watcher *watcher = calloc(1, sizeof *watcher);
  if (watcher == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok) {
    free(watcher);
    napi_throw_error(env, NULL, "a PollWatcher could not be made");
    return NULL;
  }
  int result = uv_poll_init(loop, &watcher->poll, fd);
  if (result < 0) {
    /* libuv did not take the handle, so that there is nothing to close. */
    free(watcher);
    napi_throw_error(env, uv_err_name(result), "the descriptor cannot be watched");
    return NULL;
  }
  watcher->env = env;
  watcher->poll.data = watcher;
  watcher->in_loop = true;
  if (make_references(watcher, self, arguments[1]) &&
      napi_wrap(env, self, watcher, on_collected, NULL, &watcher->self) == napi_ok) {
    watcher->wrapped = true;
    return self;
  }
  delete_references(watcher);
  close_watcher(watcher);
  napi_throw_error(env, NULL, "a PollWatcher could not be made");
  return NULL;
}

static struct watcher *unwrap(napi_env env, napi_callback_info info, size_t count,
                              napi_value *arguments) {
  napi_value self;
  void *watcher;
  if (!get_arguments(env, info, count, arguments, &self)) return NULL;
  if (napi_unwrap(env, self, &watcher) != napi_ok) {
    napi_throw_type_error(env, NULL, "this is no PollWatcher");
    return NULL;
  }
  return watcher;
}

/* start(events) */
static napi_value start(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t events;
  struct watcher *watcher = unwrap(env, info, 1, arguments);
  if (watcher == NULL || !get_int(env, arguments[0], &events)) return NULL;
  if ((events & ~(UV_READABLE | UV_WRITABLE)) != 0) {
    napi_throw_range_error(env, NULL, "only READABLE and WRITABLE can be watched for");
    return NULL;
  }
  /* libuv would take the descriptor out of its epoll set, and put it in again. */
  if (watcher->closing || events == watcher->events) return NULL;
  if (events == 0) {
    halt(watcher);
    return NULL;
  }
  int result = uv_poll_start(&watcher->poll, events, on_events);
  if (result < 0) {
    napi_throw_error(env, uv_err_name(result), "the descriptor cannot be watched");
    return NULL;
  }
  set_events(watcher, events);
  return NULL;
}

/* stop() */
static napi_value stop(napi_env env, napi_callback_info info) {
  struct watcher *watcher = unwrap(env, info, 0, NULL);
  if (watcher != NULL && !watcher->closing) halt(watcher);
  return NULL;
}

/* close() */
static napi_value close_method(napi_env env, napi_callback_info info) {
  struct watcher *watcher = unwrap(env, info, 0, NULL);
  if (watcher != NULL) close_watcher(watcher);
  return NULL;
}

bool define_poll(napi_env env, napi_value exports) {
  const napi_property_descriptor methods[] = {
      {.utf8name = "start", .method = start, .attributes = napi_default_method},
      {.utf8name = "stop", .method = stop, .attributes = napi_default_method},
      {.utf8name = "close", .method = close_method, .attributes = napi_default_method},
  };
  napi_value class;
  return napi_define_class(env, "PollWatcher", NAPI_AUTO_LENGTH, construct, NULL, 3, methods, &class) ==
             napi_ok &&
         napi_set_named_property(env, exports, "PollWatcher", class) == napi_ok;
}
