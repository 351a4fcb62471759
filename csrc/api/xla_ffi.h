/* XLA's FFI: the structures through which XLA calls a function of another library, a handler.
 *
 * They are those of xla/ffi/api/c_api.h, which jaxlib installs, version 0.1 to 0.5; only what the handlers read or
 * write is here.  Each structure begins with its size as the caller knows it, and grows at its end.  xla_ffi.c checks
 * the sizes, and tells XLA the version; XLA refuses a handler of a version that it no longer supports. */
#ifndef FA_XLA_FFI_H
#define FA_XLA_FFI_H

#include <stddef.h>
#include <stdint.h>

enum { XLA_MAJOR = 0, XLA_MINOR = 5 }; /* the newest version that these structures are known to be of */

enum xla_extension_type { XLA_METADATA = 1 };
enum xla_stage { XLA_EXECUTE = 3 };
enum xla_operand_type { XLA_BUFFER = 1 };
enum xla_attribute_type { XLA_SCALAR = 3 };
enum xla_dtype { XLA_INT64 = 5, XLA_UINT8 = 6, XLA_FLOAT32 = 11, XLA_FLOAT64 = 12 };
enum xla_code { XLA_INVALID_ARGUMENT = 3, XLA_RESOURCE_EXHAUSTED = 8 };

struct xla_extension {
  size_t size;
  int type;
  struct xla_extension *next;
};

struct xla_version {
  size_t size;
  struct xla_extension *extensions;
  int major, minor;
};

struct xla_error; /* made and freed by XLA */

struct xla_new_error {
  size_t size;
  struct xla_extension *extensions;
  const char *message;
  int code;
};

/* XLA's own functions: only the first is called. */
struct xla_api {
  size_t size;
  struct xla_extension *extensions;
  struct xla_version version;
  const void *internal;
  struct xla_error *(*create_error)(struct xla_new_error *error);
};

struct xla_buffer {
  size_t size;
  struct xla_extension *extensions;
  int dtype;
  void *data;
  int64_t axes;
  const int64_t *shape; /* row-major */
};

struct xla_scalar {
  int dtype;
  const void *value;
};

/* The arguments, or the results. */
struct xla_operands {
  size_t size;
  struct xla_extension *extensions;
  int64_t count;
  const int *types;
  struct xla_buffer *const *buffers;
};

/* The attributes, sorted by name. */
struct xla_attributes {
  size_t size;
  struct xla_extension *extensions;
  int64_t count;
  const int *types;
  const void *const *names;
  const struct xla_scalar *const *values;
};

struct xla_call_frame {
  size_t size;
  struct xla_extension *extensions;
  const struct xla_api *api;
  void *context;
  int stage;
  struct xla_operands arguments, results;
  struct xla_attributes attributes;
};

/* What XLA asks of a handler when it is registered, in place of a call. */
struct xla_metadata {
  size_t size;
  struct xla_version version;
  uint32_t traits; /* 0: none */
};

struct xla_metadata_extension {
  struct xla_extension base;
  struct xla_metadata *metadata;
};

#endif
