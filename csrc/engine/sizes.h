/* Arithmetic on sizes, which are 64-bit throughout, and on addresses of elements, whose type drivers do not know. */
#ifndef FA_SIZES_H
#define FA_SIZES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* The start of part `index`, if n is cut into `parts` parts whose sizes differ by at most one. */
static inline int64_t part_start(int64_t n, int64_t parts, int64_t index) { return index * n / parts; }

static inline int64_t round_up(int64_t a, int64_t step) { return ceil_div(a, step) * step; }

/* The address of element `index` at `p`; NULL for NULL, to which C adds no number, not even 0. */
static inline char *element(const void *p, int64_t index, int itemsize) {
  return p ? (char *)p + index * itemsize : NULL;
}

/* One element, of 4 or 8 bytes. */
static inline void copy_element(char *dst, const char *src, int itemsize) {
  if (itemsize == 4)
    memcpy(dst, src, 4);
  else
    memcpy(dst, src, 8);
}

#endif
