#include "engine/workspace.h"

#include <pthread.h>
#include <stdlib.h>

/* Upper bound on the memory that a thread keeps between calls: the arrays between the steps of a network and one packed
 * operand. Larger buffers are freed: the call that fills one takes longer than its page faults. */
#define KEPT_BYTES ((size_t)96 << 20)

struct buffer {
  void *memory;
  size_t bytes;
};

static pthread_key_t buffers_key;
static int no_key; /* an error number: the system has no more keys */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_buffers(void *value) {
  struct buffer *buffers = value;
  for (int i = 0; i < WORKSPACE_USERS; i++) free(buffers[i].memory);
  free(buffers);
}

static void make_key(void) { no_key = pthread_key_create(&buffers_key, free_buffers); }

void *workspace(enum workspace_user user, size_t bytes) {
  if (pthread_once(&once, make_key) || no_key) return NULL;
  struct buffer *buffers = pthread_getspecific(buffers_key);
  if (!buffers) {
    buffers = calloc(WORKSPACE_USERS, sizeof *buffers);
    if (!buffers || pthread_setspecific(buffers_key, buffers)) {
      free(buffers);
      return NULL;
    }
  }
  struct buffer *buffer = &buffers[user];
  if (buffer->bytes < bytes || !buffer->memory) {
    free(buffer->memory);
    buffer->bytes = aligned(bytes + 1);
    buffer->memory = aligned_alloc(64, buffer->bytes);
    if (!buffer->memory) buffer->bytes = 0;
  }
  return buffer->memory;
}

void trim_workspace(void) {
  struct buffer *buffers = pthread_once(&once, make_key) || no_key ? NULL : pthread_getspecific(buffers_key);
  if (!buffers) return;
  for (;;) {
    struct buffer *largest = buffers;
    size_t kept = 0;
    for (int i = 0; i < WORKSPACE_USERS; i++) {
      kept += buffers[i].bytes;
      if (buffers[i].bytes > largest->bytes) largest = &buffers[i];
    }
    if (kept <= KEPT_BYTES) return;
    free(largest->memory);
    *largest = (struct buffer){NULL, 0};
  }
}
