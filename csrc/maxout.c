#ifndef REAL_BITS /* this file is its own template: once for float, once for double */
#include "argmax.h"
#include "fastact_abi.h"
#include "kernels.h"
#include "sizes.h"
#include "threads.h"

/* Results that a task takes, and elements of grad_z. */
#define BLOCK 1024
#define BACKWARD_BLOCK 2048

#define REAL_BITS 32
#include "maxout.c"
#undef REAL_BITS
#define REAL_BITS 64
#include "maxout.c"
#else
#include "real.h"

/* z (outer, pieces, inner) -> y, argmax (outer, inner), `block` of the inner in a task, or of the outer where a few
 * inner follow each other: (150000, 3, 2) took 3.9 ms one by one, and takes 0.35 together */
struct REAL(maxout) {
  const struct REAL(kernels) * kernels;
  int64_t outer, pieces, inner, block;
  const real *z;
  real *y;
  uint8_t *argmax;
};

static void REAL(maxout_rows)(void *context, int64_t task) {
  const struct REAL(maxout) *m = context;
  int64_t i = task * m->block;
  m->kernels->maxout_rows(m->pieces, smaller(m->block, m->outer - i), m->z + i * m->pieces, m->y + i,
                          m->argmax ? m->argmax + i : NULL);
}

static void REAL(maxout_narrow)(void *context, int64_t task) {
  const struct REAL(maxout) *m = context;
  int64_t o = task * m->block, at = o * m->inner;
  m->kernels->maxout_narrow(smaller(m->block, m->outer - o), m->pieces, m->inner, m->z + at * m->pieces, m->y + at,
                            m->argmax ? m->argmax + at : NULL);
}

static void REAL(maxout_columns)(void *context, int64_t task) {
  const struct REAL(maxout) *m = context;
  int64_t blocks = ceil_div(m->inner, m->block), o = task / blocks, i = task % blocks * m->block;
  int64_t at = o * m->inner + i;
  m->kernels->maxout_columns(m->pieces, m->inner, smaller(m->block, m->inner - i), m->z + o * m->pieces * m->inner + i,
                             m->y + at, m->argmax ? m->argmax + at : NULL);
}

int REAL(fa_maxout)(int64_t outer, int64_t pieces, int64_t inner, const real *z, real *y, uint8_t *argmax,
                    int threads) {
  struct REAL(maxout) m = {isa_active()->REAL(kernels), outer, pieces, inner, BLOCK, z, y, argmax};
  threads = threads_for(threads, outer * inner * pieces);
  if (inner == 1) {
    share_tasks(ceil_div(outer, BLOCK), threads, REAL(maxout_rows), &m);
  } else if (inner > 0 && inner < m.kernels->lanes) {
    m.block = BLOCK / inner;
    share_tasks(ceil_div(outer, m.block), threads, REAL(maxout_narrow), &m);
  } else {
    share_tasks(outer * ceil_div(inner, BLOCK), threads, REAL(maxout_columns), &m);
  }
  return FA_OK;
}

/* grad_y, argmax (outer, inner) -> grad_z (outer, pieces, inner), in tasks as above */
struct REAL(scatter) {
  int64_t outer, pieces, inner, block;
  const real *grad_y;
  const uint8_t *argmax;
  real *grad_z;
};

static inline void REAL(scatter_winners)(int64_t outer, int64_t pieces, int64_t inner, const real *grad_y,
                                         const uint8_t *winners, real *grad_z) {
  for (int64_t o = 0; o < outer; o++, grad_z += pieces * inner)
    for (int64_t i = 0; i < inner; i++) grad_z[*winners++ * inner + i] = *grad_y++;
}

static void REAL(scatter_rows)(void *context, int64_t task) {
  const struct REAL(scatter) *s = context;
  int64_t outer = smaller(s->block, s->outer - task * s->block), at = task * s->block * s->inner;
  const real *grad_y = s->grad_y + at;
  real *grad_z = s->grad_z + at * s->pieces;
  uint8_t winners[BACKWARD_BLOCK];
  copy_winners(outer * s->inner, s->argmax + at, (uint8_t)(s->pieces - 1), winners);
  memset(grad_z, 0, (size_t)(outer * s->pieces * s->inner) * sizeof(real));
  if (s->inner == 1) /* known, 130 us instead of 340 of 300,000 */
    REAL(scatter_winners)(outer, s->pieces, 1, grad_y, winners, grad_z);
  else
    REAL(scatter_winners)(outer, s->pieces, s->inner, grad_y, winners, grad_z);
}

static void REAL(scatter_columns)(void *context, int64_t task) {
  const struct REAL(scatter) *s = context;
  int64_t blocks = ceil_div(s->inner, s->block), o = task / blocks, first = task % blocks * s->block;
  int64_t n = smaller(s->block, s->inner - first), inner = s->inner;
  const real *grad_y = s->grad_y + o * inner + first;
  uint8_t winners[BACKWARD_BLOCK];
  copy_winners(n, s->argmax + o * inner + first, (uint8_t)(s->pieces - 1), winners);
  real *grad_z = s->grad_z + o * s->pieces * inner + first;
  for (int64_t k = 0; k < s->pieces; k++) memset(grad_z + k * inner, 0, (size_t)n * sizeof(real));
  for (int64_t i = 0; i < n; i++) grad_z[winners[i] * inner + i] = grad_y[i];
}

int REAL(fa_maxout_backward)(int64_t outer, int64_t pieces, int64_t inner, const real *grad_y, const uint8_t *argmax,
                             real *grad_z, int threads) {
  if (!argmax_fits(outer * inner, argmax, pieces)) return FA_BAD_ARGMAX;
  /* a block's zeros are still in L1 when the winners are written over them */
  struct REAL(scatter) s = {outer, pieces, inner, BACKWARD_BLOCK / pieces, grad_y, argmax, grad_z};
  threads = threads_for(threads, outer * inner * pieces);
  if (inner > 0 && inner <= s.block) {
    s.block /= inner;
    share_tasks(ceil_div(outer, s.block), threads, REAL(scatter_rows), &s);
  } else {
    share_tasks(outer * ceil_div(inner, s.block), threads, REAL(scatter_columns), &s);
  }
  return FA_OK;
}

#endif
