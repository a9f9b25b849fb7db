/* An address of a socket, as bind, connect and sendto take it. */

#ifndef TSNBDFUSE_ADDRESS_H
#define TSNBDFUSE_ADDRESS_H

#include "common.h"

#include <sys/socket.h>

struct address {
  struct sockaddr_storage storage;
  socklen_t length;
};

/*
 * A path, or an abstract name that starts with a NUL and ends where the string does. False after it has thrown;
 * what no address can be is the problem, as with get_text.
 */
bool get_unix_address(napi_env env, napi_value value, struct address *address, int *problem);

#endif
