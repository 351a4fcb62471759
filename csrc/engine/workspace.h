/* Memory that drivers work in. */
#ifndef FA_WORKSPACE_H
#define FA_WORKSPACE_H

#include <stddef.h>

/* A workspace has one buffer for each user, so that drivers that call each other do not share one. */
enum workspace_user {
  WORKSPACE_DRIVER,   /* the tasks of one driver */
  WORKSPACE_BATCH,    /* the packed batch of a product with the batch in lanes */
  WORKSPACE_GRADIENT, /* a gradient between two drivers */
  WORKSPACE_FALLBACK, /* a product inside another one's task */
  WORKSPACE_HIDDEN,   /* the arrays between the steps of a network */
  WORKSPACE_QUEUE,    /* tasks of a thread team */
  WORKSPACE_USERS
};

/* The calling thread's buffer of at least `bytes`, 64-byte aligned, or NULL.  Its contents are undefined, and the next
 * call for the same user may move it.  The buffer is kept between calls, so that a training step does not ask the
 * operating system for fresh pages each time, and is freed with the thread. */
void *workspace(enum workspace_user user, size_t bytes);

/* Frees the calling thread's largest buffers until all of them together are within a bound. */
void trim_workspace(void);

/* `bytes` rounded up to whole cache lines. */
static inline size_t aligned(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

#endif
