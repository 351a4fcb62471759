#include "engine/workspace.h"

#include <stdlib.h>

#include "engine/os.h"

/* Upper bound on the memory that a thread keeps between calls: the arrays between the steps of a network and one packed
 * operand. Larger buffers are freed: the call that fills one takes longer than its page faults. */
#define KEPT_BYTES ((size_t)96 << 20)

struct buffer {
  void *memory;
  size_t bytes;
};

static os_key buffers_key;
static int no_key; /* an error number: the system has no more keys */
static os_once once = OS_ONCE;

static void free_buffers(void *value) {
  struct buffer *buffers = value;
  for (int i = 0; i < WORKSPACE_USERS; i++) os_free(buffers[i].memory);
  free(buffers);
}

static void make_key(void) { no_key = os_make_key(&buffers_key, free_buffers); }

/* The calling thread's buffers, or NULL before its first workspace or without a key. */
static struct buffer *own_buffers(void) {
  os_call_once(&once, make_key);
  return no_key ? NULL : os_get(buffers_key);
}

void *workspace(enum workspace_user user, size_t bytes) {
  struct buffer *buffers = own_buffers();
  if (!buffers) {
    if (no_key) return NULL;
    buffers = calloc(WORKSPACE_USERS, sizeof *buffers);
    if (!buffers || os_set(buffers_key, buffers)) {
      free(buffers);
      return NULL;
    }
  }
  struct buffer *buffer = &buffers[user];
  if (buffer->bytes < bytes || !buffer->memory) {
    os_free(buffer->memory);
    buffer->bytes = aligned(bytes + 1);
    buffer->memory = os_allocate(buffer->bytes);
    if (!buffer->memory) buffer->bytes = 0;
  }
  return buffer->memory;
}

void trim_workspace(void) {
  struct buffer *buffers = own_buffers();
  if (!buffers) return;
  for (;;) {
    struct buffer *largest = buffers;
    size_t kept = 0;
    for (int i = 0; i < WORKSPACE_USERS; i++) {
      kept += buffers[i].bytes;
      if (buffers[i].bytes > largest->bytes) largest = &buffers[i];
    }
    if (kept <= KEPT_BYTES) return;
    os_free(largest->memory);
    *largest = (struct buffer){NULL, 0};
  }
}
