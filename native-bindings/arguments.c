/* Arguments from JavaScript, checked. */

#include "common.h"

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

bool get_int(napi_env env, napi_value value, int32_t *result) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    napi_throw_type_error(env, NULL, "a number is expected");
    return false;
  }
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
  if (napi_get_value_double(env, value, &number) != napi_ok) {
    napi_throw_type_error(env, NULL, "a number is expected");
    return false;
  }
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
    napi_throw_range_error(env, NULL, "a bigint has more than 63 bits");
    return false;
  }
  return true;
}

bool get_string(napi_env env, napi_value value, char *result, size_t size, size_t *length) {
  size_t needed = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &needed) != napi_ok) {
    napi_throw_type_error(env, NULL, "a string is expected");
    return false;
  }
  if (needed >= size) {
    napi_throw_range_error(env, NULL, "a string is too long");
    return false;
  }
  napi_get_value_string_utf8(env, value, result, size, &needed);
  if (length != NULL) {
    *length = needed;
    return true;
  }
  for (size_t i = 0; i < needed; i++) {
    if (result[i] == '\0') {
      /* The system would see a shorter string than the caller. */
      napi_throw_range_error(env, NULL, "a string contains a NUL");
      return false;
    }
  }
  return true;
}

bool get_place(napi_env env, napi_value array, uint32_t start, uint32_t length, uint8_t **result) {
  void *data;
  size_t size;
  if (napi_get_buffer_info(env, array, &data, &size) != napi_ok) {
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

napi_value make_int(napi_env env, int64_t value) {
  napi_value result = NULL;
  napi_create_int64(env, value, &result);
  return result;
}
