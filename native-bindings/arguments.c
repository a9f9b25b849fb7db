/* Arguments from JavaScript, checked. */

#include "common.h"

#include <string.h>

bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values,
                   napi_value *self) {
  size_t given = count;
  if (napi_get_cb_info(env, info, &given, values, self, NULL) != napi_ok) return false;
  if (given < count) {
    napi_throw_type_error(env, NULL, "too few arguments");
    return false;
  }
  return true;
}

/* By way of a double, as the calls for integers quietly cut what is too large, and fractions. */
static bool get_number(napi_env env, napi_value value, double *result) {
  if (napi_get_value_double(env, value, result) == napi_ok) return true;
  napi_throw_type_error(env, NULL, "a number is expected");
  return false;
}

bool get_int(napi_env env, napi_value value, int32_t *result) {
  double number;
  if (!get_number(env, value, &number)) return false;
  /* Also false for NaN. */
  if (!(number >= INT32_MIN && number <= INT32_MAX) || number != (double)(int32_t)number) {
    napi_throw_range_error(env, NULL, "a number is not a 32-bit integer");
    return false;
  }
  *result = (int32_t)number;
  return true;
}

bool get_uint(napi_env env, napi_value value, uint32_t *result) {
  double number;
  if (!get_number(env, value, &number)) return false;
  if (!(number >= 0 && number <= UINT32_MAX) || number != (double)(uint32_t)number) {
    napi_throw_range_error(env, NULL, "a number is not a 32-bit count");
    return false;
  }
  *result = (uint32_t)number;
  return true;
}

bool get_bool(napi_env env, napi_value value, bool *result) {
  if (napi_get_value_bool(env, value, result) == napi_ok) return true;
  napi_throw_type_error(env, NULL, "a boolean is expected");
  return false;
}

bool get_bigint(napi_env env, napi_value value, int64_t *result) {
  bool lossless = false;
  if (napi_get_value_bigint_int64(env, value, result, &lossless) != napi_ok) {
    napi_throw_type_error(env, NULL, "a bigint is expected");
    return false;
  }
  if (!lossless) {
    napi_throw_range_error(env, NULL, "a bigint is not a 64-bit integer");
    return false;
  }
  return true;
}

bool get_bytes(napi_env env, napi_value value, char *result, size_t size, size_t *length,
               int *problem) {
  if (napi_get_value_string_utf8(env, value, NULL, 0, length) != napi_ok) {
    napi_throw_type_error(env, NULL, "a string is expected");
    return false;
  }
  *problem = *length < size ? 0 : ENAMETOOLONG;
  return *problem != 0 || napi_get_value_string_utf8(env, value, result, size, length) == napi_ok;
}

bool get_text(napi_env env, napi_value value, char *result, size_t size, int *problem) {
  size_t length;
  if (!get_bytes(env, value, result, size, &length, problem)) return false;
  /* The system would see a shorter string than the caller. */
  if (*problem == 0 && memchr(result, '\0', length) != NULL) *problem = EINVAL;
  return true;
}

bool get_place(napi_env env, napi_value array, uint32_t start, uint32_t length, uint8_t **result) {
  napi_typedarray_type type;
  size_t size;
  void *data;
  if (napi_get_typedarray_info(env, array, &type, &size, &data, NULL, NULL) != napi_ok ||
      type != napi_uint8_array) {
    napi_throw_type_error(env, NULL, "a Uint8Array is expected");
    return false;
  }
  if (start > size || length > size - start) {
    napi_throw_range_error(env, NULL, "a place lies outside its buffer");
    return false;
  }
  *result = (uint8_t *)data + start;
  return true;
}

bool get_elements(napi_env env, napi_value array, napi_typedarray_type type, uint64_t at_least,
                  void **result) {
  napi_typedarray_type actual;
  size_t elements;
  if (napi_get_typedarray_info(env, array, &actual, &elements, result, NULL, NULL) != napi_ok ||
      actual != type) {
    napi_throw_type_error(env, NULL, "a typed array of another type is expected");
    return false;
  }
  if (elements < at_least) {
    napi_throw_range_error(env, NULL, "a typed array has too few elements");
    return false;
  }
  return true;
}

napi_value make_int(napi_env env, int64_t value) {
  napi_value result = NULL;
  napi_create_int32(env, (int32_t)value, &result);
  return result;
}
