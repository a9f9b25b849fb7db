/* Calls that may wait, on libuv's thread pool. */

#include "common.h"

#include <stdlib.h>
#include <unistd.h>

static void execute(napi_env env, void *data) {
  (void)env;
  struct async_work *work = data;
  if (work->problem != 0) {
    work->result = -work->problem;
  } else {
    work->call(work);
  }
}

static void complete(napi_env env, napi_status status, void *data);

static bool queue(napi_env env, struct async_work *work) {
  napi_value resource;
  return napi_create_string_utf8(env, work->name, NAPI_AUTO_LENGTH, &resource) == napi_ok &&
         napi_create_async_work(env, NULL, resource, execute, complete, work, &work->handle) == napi_ok &&
         napi_queue_async_work(env, work->handle) == napi_ok;
}

static void unqueue(napi_env env, struct async_work *work) {
  if (work->handle != NULL) napi_delete_async_work(env, work->handle);
  work->handle = NULL;
}

/* Not where the thread ends: it would wait for the work as often as that is queued. */
static bool can_run_javascript(napi_env env) {
  napi_value value;
  bool same;
  /* One of the calls that are refused then; it does nothing else. */
  return napi_get_undefined(env, &value) == napi_ok &&
         napi_strict_equals(env, value, value, &same) == napi_ok;
}

static void complete(napi_env env, napi_status status, void *data) {
  struct async_work *work = data;
  int64_t result = status == napi_ok ? work->result : -ECANCELED;
  napi_value value;
  unqueue(env, work);
  if (work->again && status == napi_ok && can_run_javascript(env)) {
    if (queue(env, work)) return;
    unqueue(env, work);
    result = -ECANCELED;
  }
  napi_status made =
      work->wide ? napi_create_bigint_int64(env, result, &value) : napi_create_int64(env, result, &value);
  /* This fails where the thread ends, and nobody takes the result any more. */
  bool taken = made == napi_ok && napi_resolve_deferred(env, work->deferred, value) == napi_ok;
  if (!taken && work->gives_ownership && result >= 0) close((int)result);
  free_work(env, work);
}

struct async_work *new_work(napi_env env, size_t path_size) {
  struct async_work *work = calloc(1, sizeof *work + path_size);
  if (work == NULL) napi_throw_error(env, "ENOMEM", "no memory for a call");
  return work;
}

void free_work(napi_env env, struct async_work *work) {
  if (work->held != NULL) napi_delete_reference(env, work->held);
  free(work);
}

napi_value start_work(napi_env env, struct async_work *work, const char *name, async_call call) {
  napi_value promise;
  work->name = name;
  work->call = call;
  if (napi_create_promise(env, &work->deferred, &promise) == napi_ok && queue(env, work)) {
    return promise;
  }
  unqueue(env, work);
  free_work(env, work);
  napi_throw_error(env, NULL, "a call could not be started");
  return NULL;
}
