/* PollWatcher: a descriptor watched by the event loop of the thread that the addon was loaded in. */

#include "common.h"

#include <stdlib.h>
#include <uv.h>

struct watcher {
  uv_poll_t poll;
  napi_env env;
  napi_ref callback;
  /* To the JavaScript object: strong while the watcher is started, so that it is not collected. */
  napi_ref self;
  napi_async_cleanup_hook_handle cleanup;
  napi_async_context context;
  bool started;
  bool closing;  /* uv_close was called */
  bool closed;   /* and has called back */
  bool orphaned; /* the JavaScript object is gone: free when closed */
};

static void keep_alive(struct watcher *watcher, bool keep) {
  if (watcher->started == keep) return;
  watcher->started = keep;
  uint32_t count;
  if (watcher->self == NULL) return;
  if (keep) {
    napi_reference_ref(watcher->env, watcher->self, &count);
  } else {
    napi_reference_unref(watcher->env, watcher->self, &count);
  }
}

static void on_closed(uv_handle_t *handle) {
  struct watcher *watcher = handle->data;
  watcher->closed = true;
  /* Tells Node, if it is waiting for us to end the thread, that this handle is done. */
  if (watcher->cleanup != NULL) {
    napi_remove_async_cleanup_hook(watcher->cleanup);
    watcher->cleanup = NULL;
  }
  if (watcher->orphaned) free(watcher);
}

static void close_watcher(struct watcher *watcher) {
  if (watcher->closing) return;
  watcher->closing = true;
  uv_poll_stop(&watcher->poll);
  keep_alive(watcher, false);
  /* The callback mostly holds the watcher: kept, the two would keep each other for ever. */
  if (watcher->callback != NULL) {
    napi_delete_reference(watcher->env, watcher->callback);
    watcher->callback = NULL;
  }
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
}

/* The thread ends, with the watcher still open. */
static void on_cleanup(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  close_watcher(data);
}

static void on_collected(napi_env env, void *data, void *hint) {
  (void)hint;
  struct watcher *watcher = data;
  if (watcher->callback != NULL) napi_delete_reference(env, watcher->callback);
  if (watcher->context != NULL) napi_async_destroy(env, watcher->context);
  if (watcher->self != NULL) napi_delete_reference(env, watcher->self);
  watcher->callback = NULL;
  watcher->context = NULL;
  watcher->self = NULL;
  if (watcher->closed) {
    free(watcher);
    return;
  }
  watcher->orphaned = true;
  close_watcher(watcher);
}

static void on_events(uv_poll_t *poll, int status, int events) {
  struct watcher *watcher = poll->data;
  napi_env env = watcher->env;
  if (watcher->closing) return;
  /* libuv stops a watcher by itself when the descriptor is in an error state. */
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value self, callback, arguments[2];
  if (napi_get_reference_value(env, watcher->self, &self) == napi_ok && self != NULL &&
      napi_get_reference_value(env, watcher->callback, &callback) == napi_ok) {
    arguments[0] = make_int(env, status);
    arguments[1] = make_int(env, events);
    if (status < 0) keep_alive(watcher, false);
    /* Runs microtasks and process.nextTick after the callback, too. */
    if (napi_make_callback(env, watcher->context, self, callback, 2, arguments, NULL) ==
        napi_pending_exception) {
      napi_value error;
      if (napi_get_and_clear_last_exception(env, &error) == napi_ok) {
        napi_fatal_exception(env, error);
      }
    }
  }
  napi_close_handle_scope(env, scope);
}

/* new PollWatcher(fd, callback) */
static napi_value construct(napi_env env, napi_callback_info info) {
  napi_value arguments[2], self, name;
  int32_t fd;
  napi_valuetype type;
  if (!get_arguments(env, info, 2, arguments, &self) || !get_int(env, arguments[0], &fd)) return NULL;
  if (napi_typeof(env, arguments[1], &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, NULL, "a function is expected");
    return NULL;
  }
  uv_loop_t *loop;
  struct watcher *watcher = calloc(1, sizeof *watcher);
  if (watcher == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok) {
    free(watcher);
    napi_throw_error(env, NULL, "no memory for a PollWatcher");
    return NULL;
  }
  watcher->env = env;
  watcher->poll.data = watcher;
  int result = uv_poll_init(loop, &watcher->poll, fd);
  if (result < 0) {
    /* libuv did not take the handle, so that there is nothing to close. */
    free(watcher);
    napi_throw_error(env, uv_err_name(result), "the descriptor cannot be watched");
    return NULL;
  }
  if (napi_create_string_utf8(env, "PollWatcher", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_async_init(env, self, name, &watcher->context) != napi_ok ||
      napi_create_reference(env, arguments[1], 1, &watcher->callback) != napi_ok ||
      napi_add_async_cleanup_hook(env, on_cleanup, watcher, &watcher->cleanup) != napi_ok ||
      napi_wrap(env, self, watcher, on_collected, NULL, &watcher->self) != napi_ok) {
    watcher->orphaned = true;
    close_watcher(watcher);
    napi_throw_error(env, NULL, "a PollWatcher could not be made");
    return NULL;
  }
  return self;
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

static napi_value start(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  int32_t events;
  struct watcher *watcher = unwrap(env, info, 1, arguments);
  if (watcher == NULL || !get_int(env, arguments[0], &events) || watcher->closing) return NULL;
  int result = uv_poll_start(&watcher->poll, events & (UV_READABLE | UV_WRITABLE), on_events);
  if (result < 0) {
    napi_throw_error(env, uv_err_name(result), "the descriptor cannot be watched");
    return NULL;
  }
  keep_alive(watcher, true);
  return NULL;
}

static napi_value stop(napi_env env, napi_callback_info info) {
  struct watcher *watcher = unwrap(env, info, 0, NULL);
  if (watcher == NULL || watcher->closing) return NULL;
  uv_poll_stop(&watcher->poll);
  keep_alive(watcher, false);
  return NULL;
}

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
