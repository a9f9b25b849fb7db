/* The process itself: its session, its parent, and the program that it runs. */

#include "common.h"

#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* setsid() */
static napi_value set_session(napi_env env, napi_callback_info info) {
  (void)info;
  return make_int(env, or_errno(setsid()));
}

/* setParentDeathSignal(signal) */
static napi_value set_parent_death_signal(napi_env env, napi_callback_info info) {
  napi_value arguments[1];
  uint32_t signal;
  if (!get_arguments(env, info, 1, arguments, NULL) || !get_uint(env, arguments[0], &signal)) {
    return NULL;
  }
  return make_int(env, or_errno(prctl(PR_SET_PDEATHSIG, (unsigned long)signal)));
}

static void free_strings(char **strings) {
  if (strings == NULL) return;
  for (char **one = strings; *one != NULL; one++) free(*one);
  free(strings);
}

/* A string as UTF-8, to be freed. NULL after it has thrown, and where there is no memory or a NUL in it. */
static char *copy_string(napi_env env, napi_value value, int *problem) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
    napi_throw_type_error(env, NULL, "a string is expected");
    return NULL;
  }
  char *copy = malloc(length + 1);
  if (copy == NULL) {
    *problem = ENOMEM;
    return NULL;
  }
  if (!get_text(env, value, copy, length + 1, problem) || *problem != 0) {
    free(copy);
    return NULL;
  }
  return copy;
}

/* An array of strings with a NULL behind them, to be freed. NULL as with copy_string. */
static char **copy_strings(napi_env env, napi_value array, int *problem) {
  uint32_t count;
  if (napi_get_array_length(env, array, &count) != napi_ok) {
    napi_throw_type_error(env, NULL, "an array is expected");
    return NULL;
  }
  char **strings = calloc((size_t)count + 1, sizeof *strings);
  if (strings == NULL) {
    *problem = ENOMEM;
    return NULL;
  }
  for (uint32_t i = 0; i < count; i++) {
    napi_value element;
    bool got = napi_get_element(env, array, i, &element) == napi_ok;
    strings[i] = got ? copy_string(env, element, problem) : NULL;
    if (strings[i] == NULL) {
      free_strings(strings);
      return NULL;
    }
  }
  return strings;
}

/* execve(path, arguments, environment) */
static napi_value execute(napi_env env, napi_callback_info info) {
  napi_value arguments[3];
  int problem = 0;
  if (!get_arguments(env, info, 3, arguments, NULL)) return NULL;
  char *path = copy_string(env, arguments[0], &problem);
  char **words = path == NULL ? NULL : copy_strings(env, arguments[1], &problem);
  char **variables = words == NULL ? NULL : copy_strings(env, arguments[2], &problem);
  if (variables != NULL) {
    execve(path, words, variables);
    problem = errno;
  }
  free(path);
  free_strings(words);
  free_strings(variables);
  /* Nothing has failed where something was thrown. */
  return problem == 0 ? NULL : make_int(env, -problem);
}

bool define_process(napi_env env, napi_value exports) {
  return define(env, exports, "setsid", set_session) &&
         define(env, exports, "setParentDeathSignal", set_parent_death_signal) &&
         define(env, exports, "execve", execute);
}
