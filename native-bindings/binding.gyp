{
  "targets": [
    {
      "target_name": "native",
      "sources": ["module.c", "arguments.c", "io.c", "poll.c", "socket.c", "fuse.c", "async.c"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "cflags": ["-std=c11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wvla", "-fvisibility=hidden"]
    }
  ]
}
