/* The addon's table of contents. It keeps no state of its own, so that any number of threads may load it. */

#include "common.h"

bool define(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  return napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value) == napi_ok &&
         napi_set_named_property(env, exports, name, value) == napi_ok;
}

NAPI_MODULE_INIT() {
  if (!define_io(env, exports) || !define_poll(env, exports) || !define_socket(env, exports) ||
      !define_datagram(env, exports) || !define_busy_poll(env, exports) ||
      !define_descriptor(env, exports) || !define_process(env, exports) ||
      !define_fuse(env, exports) || !define_file(env, exports)) {
    napi_throw_error(env, NULL, "the native addon could not be set up");
    return NULL;
  }
  return exports;
}
