{
  "targets": [
    {
      "target_name": "native",
      "sources": [
        "module.c", "arguments.c", "io.c", "poll.c", "socket.c", "datagram.c", "descriptor.c", "process.c", "fuse.c",
        "file.c", "async.c", "busy-poll.c"
      ],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE", "_FILE_OFFSET_BITS=64"],
      "cflags": [
        "-std=c11", "-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wconversion", "-fvisibility=hidden"
      ]
    }
  ]
}
