/* Softmax cross-entropy of rows of logits, and its gradient, in lanes of doubles.  The float64 translation unit of an
 * ISA includes this file twice, for arrays of floats and of doubles.
 *
 * With m the largest logit of a row, e = exp(z - m) and s the sum of e, the loss of a row is
 * log s + sum of target (m - z), and its gradient is e / s - target.  s is kept as two numbers: `ties` logits equal m,
 * and the e of the others add up to `rest`.  So log s is accurate even if s is nearly 1. */
#ifndef REAL_BITS
#define EDITOR_BITS 64
#include "kernels/editor.h"
#endif

#include "kernels/exp_double.h"
#include "kernels/wide_sums.h"

#ifndef FA_CROSS_ENTROPY_H
#define FA_CROSS_ENTROPY_H

/* Rows of up to this many classes are in lanes, side by side; the classes of a longer row are in lanes. */
#define FEW_CLASSES 32

/* Sums over the classes of a row, or of a row in each lane. */
struct class_sums {
  wide ties;
  struct wide_sum rest;
  struct wide_sum below; /* of shrink (z - m), where targets are smoothed; `shrink` keeps the sum finite */
};

/* The same for a block of rows, one in each lane, and their labels. */
struct row_block {
  int64_t rows, label[WIDE_LANES]; /* -1 for a row that is ignored */
  double kept[WIDE_LANES];         /* 0 for such a row, else 1 */
  double picked[WIDE_LANES];       /* the label's logit */
  double largest[WIDE_LANES], ties[WIDE_LANES], rest[WIDE_LANES], below[WIDE_LANES];
};

static ALWAYS_INLINE struct class_sums no_classes(void) {
  return (struct class_sums){wide_set1(0), wide_no_terms(), wide_no_terms()};
}

/* log(ties + rest) of up to `classes` numbers that are at most 1: n ln 2 + log(1 + f), 0 <= f <= 1 */
static ALWAYS_INLINE wide log_of_sum(wide ties, wide rest, int64_t classes) {
  struct wide_sum s = wide_two_sum(ties, rest);
  wide n = wide_set1(0), power = wide_set1(1); /* 2^-n */
  double exponent = 1;
  for (double bound = 2; bound < (double)classes; bound *= 2, exponent++) {
    wide_mask above = wide_gt(s.high, wide_set1(bound));
    n = wide_select(above, wide_set1(exponent), n);
    power = wide_select(above, wide_set1(1 / bound), power);
  }
  wide f = wide_fma(s.low, power, wide_sub(wide_mul(s.high, power), wide_set1(1)));
  wide log = log1p_f64((fraction){f, wide_set1(1)});
  /* ln 2 in two parts.  The first has 32 bits, so n times it is exact. */
  return wide_fma(n, wide_set1(0x1.62e42feep-1), wide_fma(n, wide_set1(0x1.a39ef35793c76p-33), log));
}

#endif

typedef real REAL(four) __attribute__((vector_size(4 * sizeof(real))));
#if REAL_BITS == 32
typedef int32_t REAL(four_indices) __attribute__((vector_size(16)));
#else
typedef int64_t REAL(four_indices) __attribute__((vector_size(32)));
#endif

/* exp(z - m), z <= m; x = z - m, rounded */
static ALWAYS_INLINE wide REAL(exp_below)(wide z, wide m, wide x) {
  wide bounded = wide_max(wide_set1(-LOWEST_f64), x), n = REAL(exponent)(bounded), r = REAL(reduce)(bounded, n);
#if REAL_BITS == 64
  /* The rounding error of x would become up to |x| / 2 ULP of the result.  If x is infinite, its error is NaN. */
  wide seen = wide_sub(x, z), error = wide_sub(wide_sub(z, wide_sub(x, seen)), wide_add(m, seen));
  r = wide_add(r, wide_select(wide_gt(x, wide_set1(-LOWEST_f64)), error, wide_set1(0)));
#else
  (void)z;
  (void)m;
#endif
  wide c = REAL(coth_factor)(r);
  return wide_div(scale_f64(wide_add(c, r), n), wide_sub(c, r));
}

/* Adds exp(z - m) to the sums, and returns it. */
static ALWAYS_INLINE wide REAL(add_exponentials)(wide z, wide m, struct class_sums *sums) {
  wide x = wide_sub(z, m), e = REAL(exp_below)(z, m, x);
  wide_mask lower = wide_gt(wide_set1(0), x);
  sums->ties = wide_add(sums->ties, wide_select(lower, wide_set1(0), wide_set1(1)));
  REAL(wide_add_term)(&sums->rest, wide_select(lower, e, x)); /* otherwise x is 0 or NaN */
  return e;
}

/* Adds z - m to the sum that smoothed targets need. */
static ALWAYS_INLINE void REAL(add_below)(wide z, wide m, double shrink, struct class_sums *sums) {
  wide factor = wide_set1(shrink);
  REAL(wide_add_term)(&sums->below, wide_sub(wide_mul(z, factor), wide_mul(m, factor)));
}

/* src (rows, columns) -> dst (columns, rows), in blocks of 4 x 4 */
static void REAL(transpose_few)(int64_t rows, int64_t columns, const real *src, int64_t src_stride, real *dst,
                                int64_t dst_stride) {
  for (int64_t r = 0; r < rows; r += 4)
    for (int64_t c = 0; c < columns; c += 4) {
      const real *from = src + r * src_stride + c;
      real *to = dst + c * dst_stride + r;
      if (rows - r >= 4 && columns - c >= 4) {
        REAL(four) v[4], pairs[4];
        for (int i = 0; i < 4; i++) memcpy(&v[i], from + i * src_stride, sizeof v[i]);
        for (int i = 0; i < 2; i++) {
          pairs[i] = SHUFFLE(REAL(four_indices), v[2 * i], v[2 * i + 1], 0, 4, 1, 5);
          pairs[i + 2] = SHUFFLE(REAL(four_indices), v[2 * i], v[2 * i + 1], 2, 6, 3, 7);
        }
        for (int i = 0; i < 2; i++) {
          v[2 * i] = SHUFFLE(REAL(four_indices), pairs[2 * i], pairs[2 * i + 1], 0, 1, 4, 5);
          v[2 * i + 1] = SHUFFLE(REAL(four_indices), pairs[2 * i], pairs[2 * i + 1], 2, 3, 6, 7);
        }
        for (int i = 0; i < 4; i++) memcpy(to + i * dst_stride, &v[i], sizeof v[i]);
      } else {
        for (int64_t i = 0; i < 4 && r + i < rows; i++)
          for (int64_t j = 0; j < 4 && c + j < columns; j++) to[j * dst_stride + i] = from[i * src_stride + j];
      }
    }
}

/* Rows of few classes: their sums to `block`; their gradient, but for the label's share of the target. */
static void REAL(few_classes)(const struct cross_entropy *job, double shrink, double base, const real *z, real *grad,
                              struct row_block *block) {
  real tile[FEW_CLASSES * WIDE_LANES]; /* (classes, rows) */
  const int64_t rows = block->rows, classes = job->classes;
  if (rows < WIDE_LANES) memset(tile, 0, (size_t)(classes * WIDE_LANES) * sizeof(real));
  REAL(transpose_few)(rows, classes, z, classes, tile, WIDE_LANES);
  wide m = wide_set1(-INFINITY);
  for (int64_t k = 0; k < classes; k++) m = wide_max(m, REAL(wide_load)(tile + k * WIDE_LANES));
  struct class_sums sums = no_classes();
  for (int64_t k = 0; k < classes; k++) {
    real *column = tile + k * WIDE_LANES;
    wide logits = REAL(wide_load)(column);
    if (shrink > 0) REAL(add_below)(logits, m, shrink, &sums);
    REAL(wide_store)(column, REAL(add_exponentials)(logits, m, &sums));
  }
  wide rest = wide_total(sums.rest);
  wide_store_f64(block->largest, m);
  wide_store_f64(block->ties, sums.ties);
  wide_store_f64(block->rest, rest);
  wide_store_f64(block->below, wide_total(sums.below));
  wide factor = wide_div(wide_set1(job->scale), wide_add(sums.ties, rest));
  wide_mask kept = wide_gt(wide_load_f64(block->kept), wide_set1(0));
  for (int64_t k = 0; k < classes; k++) {
    real *column = tile + k * WIDE_LANES;
    wide gradient = wide_fma(REAL(wide_load)(column), factor, wide_set1(-base));
    REAL(wide_store)(column, wide_select(kept, gradient, wide_set1(0)));
  }
  REAL(transpose_few)(classes, rows, tile, WIDE_LANES, grad, classes);
}

/* The largest of z (n); numbers beside a NaN may be left out */
static ALWAYS_INLINE double REAL(largest)(int64_t n, const real *z) {
  wide most = wide_set1(-INFINITY);
  int64_t i = 0;
  for (; i + WIDE_LANES <= n; i += WIDE_LANES) most = wide_max(most, REAL(wide_load)(z + i));
  double lanes[LANES], largest = -INFINITY;
  vec_store(lanes, vec_max(vec_max(most.v[0], most.v[1]), vec_max(most.v[2], most.v[3])));
  for (int lane = 0; lane < LANES; lane++) largest = lanes[lane] > largest ? lanes[lane] : largest;
  for (; i < n; i++) largest = (double)z[i] > largest ? (double)z[i] : largest;
  return largest;
}

/* A row of many classes: its sums to row r of `block`; its gradient, but for the label's share of the target. */
static void REAL(many_classes)(const struct cross_entropy *job, double shrink, double base, const real *z, real *grad,
                               int64_t r, struct row_block *block) {
  const int64_t classes = job->classes, whole = classes / WIDE_LANES * WIDE_LANES;
  if (block->label[r] < 0) {
    block->largest[r] = block->ties[r] = block->rest[r] = block->below[r] = 0;
    memset(grad, 0, (size_t)classes * sizeof(real));
    return;
  }
  const size_t tail_bytes = (size_t)(classes - whole) * sizeof(real);
  const double largest = REAL(largest)(classes, z);
  const wide m = wide_set1(largest);
  real tail[WIDE_LANES];
  struct class_sums sums = no_classes();
  for (int64_t k = 0; k < whole; k += WIDE_LANES) {
    wide logits = REAL(wide_load)(z + k);
    if (shrink > 0) REAL(add_below)(logits, m, shrink, &sums);
    REAL(wide_store)(grad + k, REAL(add_exponentials)(logits, m, &sums));
  }
  if (tail_bytes) {
    REAL(wide_store)(tail, m);
    memcpy(tail, z + whole, tail_bytes);
    if (shrink > 0) REAL(add_below)(REAL(wide_load)(tail), m, shrink, &sums);
    REAL(wide_store)(tail, wide_set1(-INFINITY)); /* exponentials of 0 */
    memcpy(tail, z + whole, tail_bytes);
    REAL(wide_store)(tail, REAL(add_exponentials)(REAL(wide_load)(tail), m, &sums));
  }
  block->largest[r] = largest;
  block->ties[r] = wide_sum_lanes((struct wide_sum){sums.ties, wide_set1(0)});
  block->rest[r] = wide_sum_lanes(sums.rest);
  block->below[r] = wide_sum_lanes(sums.below);
  const wide factor = wide_set1(job->scale / (block->ties[r] + block->rest[r])), minus_base = wide_set1(-base);
  for (int64_t k = 0; k < whole; k += WIDE_LANES)
    REAL(wide_store)(grad + k, wide_fma(REAL(wide_load)(grad + k), factor, minus_base));
  if (tail_bytes) {
    REAL(wide_store)(tail, wide_fma(REAL(wide_load)(tail), factor, minus_base));
    memcpy(grad + whole, tail, tail_bytes);
  }
}

static double REAL(cross_entropy)(const struct cross_entropy *job) {
  const int64_t classes = job->classes;
  const double base = job->smoothing / (double)classes, own = 1 - job->smoothing;
  double shrink = 0; /* at most 1 / (4 classes) */
  if (base > 0)
    for (shrink = 0.125; shrink * (double)classes > 0.25; shrink /= 2) continue;
  struct wide_sum loss = wide_no_terms();
  for (int64_t first = 0; first < job->rows; first += WIDE_LANES) {
    const real *z = (const real *)job->logits + first * classes;
    real *grad = (real *)job->grad + first * classes;
    struct row_block block;
    block.rows = WIDE_LANES;
    if (job->rows - first < WIDE_LANES) /* lanes without a row are not kept */
      block = (struct row_block){.rows = job->rows - first};
    for (int64_t r = 0; r < block.rows; r++) {
      int64_t label = job->labels[first + r];
      /* The driver has checked the labels, but another thread may write to them. */
      int kept = label != job->ignore_index && label >= 0 && label < classes;
      block.label[r] = kept ? label : -1;
      block.kept[r] = kept ? 1 : 0;
      block.picked[r] = (double)z[r * classes + (kept ? label : 0)];
    }
    if (classes <= FEW_CLASSES)
      REAL(few_classes)(job, shrink, base * job->scale, z, grad, &block);
    else
      for (int64_t r = 0; r < block.rows; r++)
        REAL(many_classes)(job, shrink, base * job->scale, z + r * classes, grad + r * classes, r, &block);
    for (int64_t r = 0; r < block.rows; r++)
      if (block.label[r] >= 0) grad[r * classes + block.label[r]] -= (real)(own * job->scale);

    const wide share = wide_set1(job->share), m = wide_load_f64(block.largest);
    wide row = wide_mul(log_of_sum(wide_load_f64(block.ties), wide_load_f64(block.rest), classes), share);
    if (own > 0) { /* 0 times an infinite distance is 0 */
      wide distance = wide_sub(wide_mul(m, share), wide_mul(wide_load_f64(block.picked), share));
      row = wide_fma(wide_set1(own), distance, row);
    }
    if (base > 0) row = wide_fma(wide_set1(-base / shrink * job->share), wide_load_f64(block.below), row);
    wide_mask kept = wide_gt(wide_load_f64(block.kept), wide_set1(0));
    REAL(wide_add_term)(&loss, wide_select(kept, row, wide_set1(0)));
  }
  return wide_sum_lanes(loss);
}
